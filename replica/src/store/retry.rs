//! Retries: which failures are worth another attempt, how often, how long.
