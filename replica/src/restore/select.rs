//! Which chain, and which point in it.
//!
//! The latest chain is the one that was written to last ([`super::latest`]), whatever the heartbeat says. A new generation that has no
//! files yet is no failure: its first upload, the snapshot, is still on its way, and the one before it is still the latest.
//! A chain with a hole, or with files but without a snapshot, is *not* passed over in favour of an older one where the newest
//! state is asked for: that would be old data without a word. A state at a time is the newest of all chains by then.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::documents::Heartbeat;
use crate::format::Txid;
use crate::restore::latest::{self, Lived, Moment};
use crate::restore::plan::gap_after;
use crate::restore::refusal::{no_snapshot, nothing, too_early, unknown_chain};
use crate::restore::times::{Bounds, CommitTimes, claimed};
use crate::restore::walk::reachable;
use crate::restore::{Inventory, Plan, RestoreError, Rival, plan, tip};
use crate::store::{Chain, Key, LtxObject, Store, read_all};

/// Largest heartbeat that is read, bytes.
const HEARTBEAT_LIMIT: usize = 64 << 10;
/// Chains listed at once.
const CONCURRENT_CHAINS: usize = 4;
/// Headers tried at either end of a chain before it is called junk.
const HEADERS_TRIED: usize = 8;

/// The point asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The newest.
    Latest,
    /// The newest at or before.
    AtOrBefore(Timestamp),
    /// Exactly this one.
    Txid(crate::format::Txid),
}

/// A chain, what it has, and the plan that reaches the point asked for.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The plan.
    pub plan: Plan,
    /// Everything the chain has.
    pub inventory: Inventory,
    /// When the state was read from the source: everything in the copy was committed then. From the
    /// header of the file that knows best (a snapshot may be taken later than its data), bounded by the store's word.
    pub timestamp: Timestamp,
    /// What an operator should know (heartbeat and files disagree on the latest chain, …).
    pub remarks: Vec<String>,
    /// Where no chain was asked for: the chains that were alive at once, the chosen one first; none where it was alone. Each
    /// has commits that the others have not, so somebody must choose.
    pub rivals: Vec<Rival>,
}

/// Finds the chain (the one asked for; else the latest, or for a time the one with the newest state by then) and
/// plans the restore.
///
/// # Errors
/// Nothing restorable, the point not reachable, the latest chain damaged, or the store's errors.
pub async fn select(
    store: &dyn Store,
    chain: Option<Chain>,
    target: Target,
) -> Result<Selected, RestoreError> {
    reach(store, chain, target).await?.ok_or_else(|| too_early(target))
}

/// As [`select()`]; `None` where no chain reaches back to the time asked for.
pub(super) async fn reach(
    store: &dyn Store,
    chain: Option<Chain>,
    target: Target,
) -> Result<Option<Selected>, RestoreError> {
    let mut remarks = Vec::new();
    // Before the listing, so that what it vouches for must be in the listing.
    let beat = match (chain, target) {
        (None, Target::Latest | Target::Txid(_)) => heartbeat(store, &mut remarks).await,
        _ => None,
    };
    let chains = store.chains().await?;
    let asked = match chain {
        Some(chain) if !chains.contains(&chain) => {
            return Err(unknown_chain(store, chain, &chains));
        }
        Some(chain) => vec![chain],
        None => chains.clone(),
    };
    let mut lived: Vec<Lived> = stream::iter(asked)
        .map(|chain| live(store, chain))
        .buffered(CONCURRENT_CHAINS)
        .try_filter_map(async |lived| Ok(lived))
        .try_collect()
        .await?;
    if lived.is_empty() {
        return Err(nothing(store, &chains));
    }
    remarks.extend(latest::sort(&mut lived, store.keeps_time(), beat.as_ref()));
    let lived = Candidates { store, lived, target };
    let Some(mut selected) = lived.select(remarks).await? else { return Ok(None) };
    if chain.is_none() {
        selected.rivals = lived.rivals(&selected).await?;
    }
    Ok(Some(selected))
}

/// Whatever is wrong with it, the heartbeat never stops a restore.
async fn heartbeat(store: &dyn Store, remarks: &mut Vec<String>) -> Option<Heartbeat> {
    let why = match read_all(store, &Key::Heartbeat, HEARTBEAT_LIMIT).await {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(heartbeat) => return Some(heartbeat),
            Err(error) => error.to_string(),
        },
        Err(error) if error.is_not_found() => return None,
        Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    remarks.push(format!("the heartbeat cannot be read ({why}); going by the files alone"));
    None
}

/// Lists a chain and reads when it was written; `None` where it has no files.
async fn live(store: &dyn Store, chain: Chain) -> Result<Option<Lived>, RestoreError> {
    let inventory = Inventory::read(store, chain).await?;
    let (Some(first), Some(tip)) = (inventory.first().copied(), latest::tip(&inventory).copied())
    else {
        return Ok(None);
    };
    let bounds = Bounds::new(store.keeps_time(), &inventory);
    let moment = async |file: &LtxObject| {
        let claimed = claimed(store, &inventory, file).await?;
        Ok::<_, RestoreError>(Moment { claimed, time: bounds.time(file, claimed) })
    };
    let (begun, tip) = (moment(&first).await?, moment(&tip).await?);
    let junk = begun.claimed.is_none()
        && tip.claimed.is_none()
        && !has_valid_file(store, &inventory).await?;
    Ok(Some(Lived { inventory, begun, tip, junk }))
}

async fn has_valid_file(store: &dyn Store, inventory: &Inventory) -> Result<bool, RestoreError> {
    let mut files: Vec<&LtxObject> = inventory.files.iter().collect();
    files.sort_by_key(|file| file.txids);
    let ends = files.iter().take(HEADERS_TRIED).chain(files.iter().rev().take(HEADERS_TRIED));
    for file in ends {
        if claimed(store, inventory, file).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The chains that there are, the latest first, and what is wanted of them.
struct Candidates<'a> {
    store: &'a dyn Store,
    lived: Vec<Lived>,
    target: Target,
}

impl Candidates<'_> {
    async fn select(&self, mut remarks: Vec<String>) -> Result<Option<Selected>, RestoreError> {
        let sound = self.sound(&mut remarks);
        match self.target {
            Target::Latest => {
                let Some(latest) = sound.first() else { return Ok(None) };
                if !latest.inventory.has_snapshot() {
                    let newest = self.newest_of(&sound).await?;
                    return Err(no_snapshot(self.store, &latest.inventory, newest));
                }
                let plan = tip::plan_newest(self.store, &latest.inventory, &mut remarks).await?;
                self.selected(latest, plan, self.store.keeps_time(), remarks).await.map(Some)
            }
            Target::Txid(txid) => self.at_txid(&sound, txid, remarks).await.map(Some),
            Target::AtOrBefore(limit) => self.at_or_before(&sound, limit, remarks).await,
        }
    }

    /// All but the junk, unless there is nothing else.
    fn sound(&self, remarks: &mut Vec<String>) -> Vec<&Lived> {
        if self.lived.iter().all(|chain| chain.junk) {
            return self.lived.iter().collect();
        }
        let (junk, sound): (Vec<&Lived>, Vec<&Lived>) =
            self.lived.iter().partition(|chain| chain.junk);
        let named = junk.iter().filter(|chain| chain.begun.time <= self.limit());
        remarks.extend(named.map(|chain| {
            format!("generation {}: passed over, none of its files is valid", chain.inventory.chain)
        }));
        sound
    }

    fn limit(&self) -> Timestamp {
        match self.target {
            Target::AtOrBefore(limit) => limit,
            Target::Latest | Target::Txid(_) => Timestamp::MAX,
        }
    }

    /// All that begin with a snapshot; where one that should count does not, that is told.
    fn headed<'a>(&self, sound: &[&'a Lived], remarks: &mut Vec<String>) -> Vec<&'a Lived> {
        let (headed, headless): (Vec<&Lived>, Vec<&Lived>) =
            sound.iter().partition(|chain| chain.inventory.has_snapshot());
        let counting = headless.iter().filter(|chain| chain.begun.time <= self.limit());
        remarks.extend(counting.map(|chain| {
            format!(
                "generation {}: passed over, it has lost its snapshot (written to from {} to {})",
                chain.inventory.chain, chain.begun.time, chain.tip.time
            )
        }));
        headed
    }

    /// The latest chain that ever had the TXID.
    async fn at_txid(
        &self,
        sound: &[&Lived],
        txid: Txid,
        mut remarks: Vec<String>,
    ) -> Result<Selected, RestoreError> {
        let headed = self.headed(sound, &mut remarks);
        let having = headed.iter().filter(|chain| chain.newest() >= Some(txid));
        let having: Vec<&&Lived> = having.collect();
        let Some(chosen) = having.first().copied().or(headed.first()) else {
            return Err(no_snapshot(self.store, &sound[0].inventory, None));
        };
        let plan = plan(&chosen.inventory, Some(txid))?;
        if self.lived.len() > 1 {
            let others = match having.len() {
                0 | 1 => "no other has it".to_owned(),
                more => format!(
                    "{} other(s) had it too (choose with --generation; `shipper points` lists them)",
                    more - 1
                ),
            };
            let chain = chosen.inventory.chain;
            remarks.push(format!("TXID {txid} is taken from generation {chain}: {others}"));
        }
        self.selected(chosen, plan, self.store.keeps_time(), remarks).await
    }

    /// The newest state of any chain by then.
    async fn at_or_before(
        &self,
        sound: &[&Lived],
        limit: Timestamp,
        mut remarks: Vec<String>,
    ) -> Result<Option<Selected>, RestoreError> {
        let headed = self.headed(sound, &mut remarks);
        let mut kept = self.store.keeps_time();
        let mut best = self.best(&headed, limit, kept).await?;
        if best.is_none() && kept && latest::is_copied(&self.lived) {
            kept = false;
            best = self.best(&headed, limit, kept).await?;
            if best.is_some() {
                remarks.push(format!(
                    "by the store's clock nothing was there at {limit}, as in a copied bucket: going by the times in the files, which whoever wrote them chose"
                ));
            }
        }
        let Some((point, chosen)) = best else {
            let headless = sound
                .iter()
                .find(|chain| !chain.inventory.has_snapshot() && chain.begun.time <= limit);
            return match headless {
                Some(chain) => Err(no_snapshot(self.store, &chain.inventory, None)),
                None => Ok(None),
            };
        };
        // Rounding down must not hide a hole: a later state that was committed by then, but cannot be
        // reached because files before it are lost, is a refusal, not older data.
        if point.lost
            && let Some(gap) = gap_after(&chosen.inventory, point.reached)
        {
            return Err(gap.refusal(&chosen.inventory, point.reached));
        }
        let plan = plan(&chosen.inventory, point.reached)?;
        let selected = self.selected(chosen, plan, kept, remarks).await?;
        Ok(Some(self.told(selected)))
    }

    async fn best<'a>(
        &self,
        headed: &[&'a Lived],
        limit: Timestamp,
        kept: bool,
    ) -> Result<Option<(PointInTime, &'a Lived)>, RestoreError> {
        let mut best = None;
        for chain in headed {
            let point = self.by(chain, limit, kept).await?;
            let Some(point) = point else { continue };
            let rank = (point.time, chain.inventory.chain);
            if best.as_ref().is_none_or(|(_, _, than)| rank > *than) {
                best = Some((point, *chain, rank));
            }
        }
        Ok(best.map(|(point, chain, _)| (point, chain)))
    }

    /// The newest state of a chain by then.
    async fn by(
        &self,
        chain: &Lived,
        limit: Timestamp,
        kept: bool,
    ) -> Result<Option<PointInTime>, RestoreError> {
        let inventory = &chain.inventory;
        let mut times = CommitTimes::kept(self.store, inventory, kept);
        let reached = times.last_at_or_before(&reachable(inventory), limit).await?;
        let Some(mut newest) = reached else { return Ok(None) };
        if gap_after(inventory, reached).is_some() {
            let ends = inventory.files.iter().map(|file| file.txids.max());
            let mut beyond: Vec<Txid> = ends.filter(|end| Some(*end) > reached).collect();
            beyond.sort_unstable();
            beyond.dedup();
            newest = times.last_at_or_before(&beyond, limit).await?.unwrap_or(newest);
        }
        let time = times.time(newest).await?;
        Ok(Some(PointInTime { reached, time, lost: Some(newest) != reached }))
    }

    fn told(&self, mut selected: Selected) -> Selected {
        let others = self.lived.len() - 1;
        if others > 0 {
            selected.remarks.push(format!(
                "generation {} has the newest state at or before {}; {others} other(s) were looked at",
                selected.plan.chain,
                self.limit(),
            ));
        }
        selected
    }

    async fn selected(
        &self,
        chosen: &Lived,
        plan: Plan,
        kept: bool,
        mut remarks: Vec<String>,
    ) -> Result<Selected, RestoreError> {
        let inventory = chosen.inventory.clone();
        remarks.extend(inventory.remark());
        let timestamp = CommitTimes::kept(self.store, &inventory, kept).time(plan.txid).await?;
        Ok(Selected { plan, inventory, timestamp, remarks, rivals: Vec::new() })
    }

    /// The newest state that any of them can give, the latest first.
    async fn newest_of(&self, chains: &[&Lived]) -> Result<Option<Rival>, RestoreError> {
        for chain in chains {
            if let Some(point) = self.newest(chain).await? {
                return Ok(Some(point));
            }
        }
        Ok(None)
    }

    async fn newest(&self, chain: &Lived) -> Result<Option<Rival>, RestoreError> {
        let inventory = &chain.inventory;
        let Some(txid) = reachable(inventory).last().copied() else { return Ok(None) };
        let time = CommitTimes::new(self.store, inventory).time(txid).await?;
        Ok(Some(Rival::new(self.store, inventory.chain, txid, time)))
    }

    /// Those that were alive at once, the chosen one first.
    async fn rivals(&self, selected: &Selected) -> Result<Vec<Rival>, RestoreError> {
        let (chosen, kept) = (selected.plan.chain, self.store.keeps_time());
        let others = latest::rivals(&self.lived, chosen, kept, self.limit());
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let this = self.lived.iter().filter(|chain| chain.inventory.chain == chosen);
        let mut rivals = Vec::new();
        for chain in this.chain(others) {
            rivals.extend(self.newest(chain).await?);
        }
        Ok(rivals)
    }
}

/// What a chain has of a time.
struct PointInTime {
    /// The newest state that can be restored.
    reached: Option<Txid>,
    /// When the newest was committed.
    time: Timestamp,
    /// The newest is another one, behind a hole.
    lost: bool,
}
