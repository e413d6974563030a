//! Ships live SQLite databases to a replica.
