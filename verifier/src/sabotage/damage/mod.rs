//! The catalogue: every damage that the drill is tried with, by family.
//!
//! A damage is made for a [`Scene`] and applied to a [`Scratch`] copy of it. Byte damage is what disks, networks and
//! deletions do; forged files have every checksum of the *file* right, as if written by our own tools: only what lies
//! beyond the file (the chain, the database, a witness) can tell.

mod content;
mod flipped;
mod foreign;
mod forged;
mod generations;
mod harmless;
mod missing;
mod moved;
mod page_size;
mod truncated;
mod unneeded;

use replica::store::LtxObject;

use crate::sabotage::scratch::{Scene, Scratch};

/// What the drill should say of a damaged copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// FAIL, first by one of these checks.
    Caught(&'static [&'static str]),
    /// PASS: the data is whole.
    Harmless,
    /// PASS, since this chain has nothing that could tell, for this reason.
    NotCatchable(&'static str),
    /// FAIL where what is lost leaves a trace in the database; else PASS, for this reason.
    ByChance(&'static str),
}

/// What a chain without database checksums cannot tell.
pub(super) const NO_CHECKSUMS: &str = "not catchable: this chain has no database checksums";

impl Expected {
    const CHAIN: Self = Self::Caught(&["chain"]);

    /// The one on a chain with database checksums, or the other on one without.
    fn by_checksums(scene: &Scene, checksummed: Self, plain: Self) -> Self {
        if scene.is_checksummed() { checksummed } else { plain }
    }
}

/// Whether a damage was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It was.
    Done,
    /// The chain has nothing to damage so; why.
    Not(String),
}

impl Applied {
    fn not(reason: &str) -> anyhow::Result<Self> {
        Ok(Self::Not(reason.to_owned()))
    }
}

type Apply = Box<dyn Fn(&Scratch<'_>) -> anyhow::Result<Applied> + Send + Sync>;

/// One way to damage a replica.
pub struct Damage {
    /// What it does, as a noun phrase; unique.
    pub name: String,
    /// What the drill should say.
    pub expected: Expected,
    apply: Apply,
}

impl std::fmt::Debug for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Damage")
            .field("name", &self.name)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl Damage {
    fn new(
        name: impl Into<String>,
        expected: Expected,
        apply: impl Fn(&Scratch<'_>) -> anyhow::Result<Applied> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), expected, apply: Box::new(apply) }
    }

    /// One that does nothing, and says so.
    #[cfg(test)]
    pub(super) fn for_tests(expected: Expected, applied: Applied) -> Self {
        Self::new("for tests", expected, move |_| Ok(applied.clone()))
    }

    /// Damages a scratch copy.
    ///
    /// # Errors
    /// The file system's, or a chain that is not the one the damage was made for.
    pub fn apply(&self, scratch: &Scratch<'_>) -> anyhow::Result<Applied> {
        (self.apply)(scratch)
    }
}

/// Every damage, for a chain.
#[must_use]
pub fn catalogue(scene: &Scene) -> Vec<Damage> {
    [
        missing::damages(),
        truncated::damages(scene),
        flipped::damages(scene),
        moved::damages(scene),
        page_size::damages(scene),
        forged::damages(scene),
        content::damages(scene),
        generations::damages(scene),
        unneeded::damages(),
        harmless::damages(),
        foreign::damages(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The first, a middle one and the last file, where the chain has so many.
fn three(scene: &Scene) -> Option<(LtxObject, LtxObject, LtxObject)> {
    let files = &scene.files;
    if files.len() < 3 {
        return None;
    }
    Some((*files.first()?, *files.get(files.len() / 2)?, *files.last()?))
}

/// Why a damage between files was not done.
const FEW_FILES: &str = "the chain has too few files";
