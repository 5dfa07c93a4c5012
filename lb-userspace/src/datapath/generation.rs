//! From the maps of another build to this one's, in one step.
//!
//! ```text
//! pin_dir/maps        what the programs in force use, with LAYOUTS, which says what lies in them
//! pin_dir/maps-next   being made: the same maps again where the layout is the same, else new ones
//! ```
//!
//! What only the agent writes is copied first, and brought to what is declared, while the programs in force go on with theirs. Then, if packets write
//! one of the maps that are copied, the datapath is held (`hold`), those maps are copied, and the two directories change places: from then on the new
//! ones are in force. The links' programs follow. An agent that dies before that has changed nothing; one that dies after it has left maps that the
//! next one finds as it would have left them itself.

use std::{collections::BTreeMap, str};

use aya::maps::{Array, HashMap, Map, MapData};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_HASH;
use lb_common::abi::{
    MARK, Settings,
    layout::{self, Keeper, MapLayout},
    maps::{self, LAYOUT_BYTES, LAYOUTS, MAX_LAYOUTS, NAME_BYTES},
};

use super::{
    DatapathError,
    copy::{Copied, Table},
    hold::Hold,
    layout::{Copying, Layout, Transfer, transfer},
    object::refused,
    pin::PinDir,
};

/// Key of the version that made the maps.
const VERSION: &str = "VERSION";
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A flow table's maps are copied together: heads, and buckets.
const TABLES: [(&str, &str); 2] = [(maps::FLOW_HEADS4, maps::FLOWS4), (maps::FLOW_HEADS6, maps::FLOWS6)];
/// Maps that programs on cgroups write as well, which can't be held.
const BY_SOCKETS: [&str; 5] = [maps::ACTIVE, maps::CLIENTS, maps::AFFINITY, maps::SOCKETS, maps::SOCKET_PINS];

/// What lies in `pin_dir`.
pub enum Found {
    /// No maps, or such as a first start didn't finish.
    Nothing,
    /// This build's.
    Own(Settings),
    /// Those of another build, and what becomes of them.
    Other(Settings, Upgrade),
}

/// What becomes of each map.
type Transfers = BTreeMap<&'static str, (Keeper, Transfer)>;

/// What becomes of another build's maps.
pub struct Upgrade {
    transfers: Transfers,
    /// The version that made them.
    pub made_by: String,
}

type Texts = HashMap<MapData, [u8; NAME_BYTES], [u8; LAYOUT_BYTES]>;

/// Zero-padded.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let length = text.len().min(N);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    bytes
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    str::from_utf8(&bytes[..end]).unwrap_or_default().into()
}

/// Says beside the maps what lies in them: whole, or not at all.
///
/// # Errors
/// The kernel refuses.
pub fn describe(pins: &PinDir) -> Result<(), DatapathError> {
    let failed = || DatapathError::kernel(LAYOUTS);
    let shape = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_HASH as u32,
        NAME_BYTES as u32,
        LAYOUT_BYTES as u32,
        MAX_LAYOUTS,
        0,
    );
    let data = MapData::create(shape, LAYOUTS, None).map_err(failed())?;
    let mut texts: Texts = Map::HashMap(data).try_into().map_err(failed())?;
    let all = layout::all().into_iter().map(|map| (map.name, map.to_string()));
    for (name, value) in all.chain([(VERSION, OWN_VERSION.to_string())]) {
        texts.insert(padded::<NAME_BYTES>(name), padded::<LAYOUT_BYTES>(&value), 0).map_err(failed())?;
    }
    texts.pin(pins.map(LAYOUTS)).map_err(DatapathError::kernel(LAYOUTS))
}

/// The texts by name.
fn texts(pins: &PinDir) -> Result<BTreeMap<String, String>, DatapathError> {
    let texts: Texts = pins.open_as(LAYOUTS, Map::HashMap)?;
    let entries = texts.iter().map(|entry| entry.map(|(name, value)| (text(&name), text(&value))));
    entries.collect::<Result<_, _>>().map_err(DatapathError::kernel(LAYOUTS))
}

/// The settings of the pinned maps; `None`: there are none, or a first start didn't get as far as writing them.
fn settings(pins: &PinDir) -> Result<Option<Settings>, DatapathError> {
    if !pins.map(maps::SETTINGS).exists() {
        return Ok(None);
    }
    let map = MapData::from_pin(pins.map(maps::SETTINGS)).map_err(refused("SETTINGS"))?;
    let found = match Array::<_, Settings>::try_from(Map::Array(map)) {
        Ok(map) => map.get(&0, 0).map_err(DatapathError::kernel("SETTINGS"))?,
        Err(_) => Settings { layout: u64::MAX, ..Settings::default() },
    };
    match found.layout {
        0 => Ok(None),
        MARK => Ok(Some(found)),
        found => Err(DatapathError::Unknown { path: pins.path().display().to_string(), found, wanted: MARK }),
    }
}

/// The first two numbers of a version.
fn minor(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// What becomes of maps with these layouts. `sockets`: programs on cgroups are in force.
///
/// # Errors
/// One can't be taken over: which, and why.
fn transfers(
    found: &BTreeMap<String, String>,
    wanted: &[MapLayout],
    sockets: bool,
) -> Result<Transfers, (&'static str, String)> {
    let mut transfers = BTreeMap::new();
    for map in wanted {
        let failed = |why| (map.name, why);
        let new = Layout::own(map).map_err(failed)?;
        let old = found.get(map.name).map(|text| text.parse()).transpose().map_err(failed)?;
        let transfer = transfer(map.keeper, old.as_ref(), &new).map_err(failed)?;
        if transfer != Transfer::Same && old.is_some() && sockets && BY_SOCKETS.contains(&map.name) {
            return Err(failed(
                "its layout has changed, and programs on a cgroup write it; take them off first, \
                 with [sockets] scope = \"off\""
                    .into(),
            ));
        }
        transfers.insert(map.name, (map.keeper, transfer));
    }
    let changed = |name: &str| transfers.get(name).is_some_and(|(_, transfer)| *transfer != Transfer::Same);
    let both: Vec<&str> = TABLES
        .into_iter()
        .filter(|(heads, buckets)| changed(heads) || changed(buckets))
        .flat_map(|(heads, buckets)| [heads, buckets])
        .collect();
    for map in wanted.iter().filter(|map| both.contains(&map.name)) {
        let failed = |why| (map.name, why);
        let new = Layout::own(map).map_err(failed)?;
        transfers.entry(map.name).and_modify(|(_, transfer)| {
            if *transfer == Transfer::Same {
                *transfer = Transfer::Copied(Copying::whole(&new.key), Copying::whole(&new.value));
            }
        });
    }
    Ok(transfers)
}

/// Looks what lies in `pin_dir`, and whether this build can use it.
///
/// # Errors
/// It can't, or the kernel refuses. Nothing has been touched.
pub fn look(pins: &PinDir) -> Result<Found, DatapathError> {
    let Some(settings) = settings(pins)? else { return Ok(Found::Nothing) };
    let path = || pins.path().display().to_string();
    let gone = |map: &str| DatapathError::MapGone { path: path(), map: map.into() };
    if !pins.map(LAYOUTS).exists() {
        return Err(gone(LAYOUTS));
    }
    let mut found = texts(pins)?;
    let made_by = found.remove(VERSION).unwrap_or_default();
    let wanted = layout::all();
    let described = |map: &&MapLayout| found.contains_key(map.name) && !pins.map(map.name).exists();
    if let Some(map) = wanted.iter().find(described) {
        return Err(gone(map.name));
    }
    let not = |map: &str, why| DatapathError::NotTakenOver {
        path: path(),
        map: map.into(),
        made_by: made_by.clone(),
        why,
    };
    let sockets = std::fs::read_dir(pins.sockets()).is_ok_and(|mut entries| entries.next().is_some());
    let transfers = transfers(&found, &wanted, sockets).map_err(|(map, why)| not(map, why))?;
    if transfers.len() == found.len() && transfers.values().all(|(_, transfer)| *transfer == Transfer::Same) {
        return Ok(Found::Own(settings));
    }
    if minor(&made_by) > minor(OWN_VERSION) {
        return Err(not(
            "",
            format!("this is version {OWN_VERSION}, which is older than that by more than a patch"),
        ));
    }
    Ok(Found::Other(settings, Upgrade { transfers, made_by }))
}

impl Upgrade {
    /// Begins `maps-next`, with the maps that stay. Those that don't are made there by whoever loads the programs.
    ///
    /// # Errors
    /// The kernel or the file system refuses.
    pub fn begin(&self, pins: &PinDir) -> Result<(), DatapathError> {
        let same = self.transfers.iter().filter(|(_, (_, transfer))| *transfer == Transfer::Same);
        let same: Vec<(&'static str, MapData)> =
            same.map(|(name, _)| Ok((*name, pins.data(name)?))).collect::<Result<_, DatapathError>>()?;
        pins.stage()?;
        same.iter().try_for_each(|(name, map)| map.pin(pins.map(name)).map_err(DatapathError::kernel(*name)))
    }

    /// Once all maps are there: copies what the agent alone writes, and what there is of flows, so that it is known where they go.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn prepare(&self, pins: &PinDir) -> Result<(), DatapathError> {
        describe(pins)?;
        self.copy(pins, |keeper| matches!(keeper, Keeper::Agent | Keeper::Derived))?;
        self.copy_flows(pins)
    }

    /// Are maps to be copied that packets write?
    fn holds(&self) -> bool {
        self.transfers
            .values()
            .any(|(keeper, transfer)| *keeper == Keeper::Packets && matches!(transfer, Transfer::Copied(..)))
    }

    /// Puts the new maps in force; with the datapath held until its programs are replaced, if need be. True: it is.
    ///
    /// # Errors
    /// The kernel refuses; everything is as it was.
    pub fn commit(&self, pins: &PinDir) -> Result<bool, DatapathError> {
        if !self.holds() {
            return pins.exchange().map(|()| false);
        }
        let hold = Hold::on(&pins.programs())?;
        let copied = self.copy(pins, |keeper| keeper == Keeper::Packets).and_then(|()| self.copy_flows(pins));
        match copied.and_then(|()| pins.exchange()) {
            Ok(()) => Ok(true),
            Err(e) => {
                hold.undo();
                Err(e)
            }
        }
    }

    /// Maps that are copied or made anew, for the log.
    pub fn changed(&self) -> Vec<&'static str> {
        self.transfers
            .iter()
            .filter(|(_, (_, transfer))| *transfer != Transfer::Same)
            .map(|(name, _)| *name)
            .collect()
    }

    fn copy(&self, pins: &PinDir, which: impl Fn(Keeper) -> bool) -> Result<(), DatapathError> {
        let flows = |name: &str| TABLES.iter().any(|(heads, buckets)| [*heads, *buckets].contains(&name));
        for (name, (keeper, transfer)) in &self.transfers {
            if let Transfer::Copied(key, value) = transfer
                && which(*keeper)
                && !flows(name)
            {
                Copied { name, key, value }.copy(&pins.old_data(name)?, &pins.data(name)?)?;
            }
        }
        Ok(())
    }

    fn copy_flows(&self, pins: &PinDir) -> Result<(), DatapathError> {
        for (heads, buckets) in TABLES {
            if let Some((_, Transfer::Copied(_, bucket))) = self.transfers.get(buckets) {
                let old = Table::over(&pins.old_data(heads)?, &pins.old_data(buckets)?, false)?;
                Table::over(&pins.data(heads)?, &pins.data(buckets)?, true)?.copy(&old, bucket)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> BTreeMap<String, String> {
        layout::all().into_iter().map(|map| (map.name.to_string(), map.to_string())).collect()
    }

    fn changed(found: &BTreeMap<String, String>) -> Vec<&'static str> {
        let transfers = transfers(found, &layout::all(), false).expect("taken over");
        transfers
            .into_iter()
            .filter(|(_, (_, transfer))| *transfer != Transfer::Same)
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn each_map_by_itself_and_flow_tables_whole() {
        let mut other = found();
        assert_eq!(changed(&other), Vec::<&str>::new());
        other.remove(maps::PAST);
        assert_eq!(changed(&other), [maps::PAST]);
        let mut other = found();
        let services = other.get_mut(maps::SERVICES6).expect("it is there");
        *services = services.replace("value=", "value=2").replace("local@", "elsewhere@");
        assert_eq!(changed(&other), [maps::SERVICES6]);
        let mut other = found();
        let flows = other.get_mut(maps::FLOWS4).expect("it is there");
        *flows = flows.replace("asked_at@", "heard_at@");
        assert_eq!(changed(&other), [maps::FLOWS4, maps::FLOW_HEADS4]);
    }

    #[test]
    fn what_cant_be_taken_over_is_named() {
        let mut other = found();
        let heads = other.get_mut(maps::FLOW_HEADS6).expect("it is there");
        let (_, rest) = heads.split_once(' ').expect("words");
        *heads = format!("meaning=1 {rest}");
        let (map, why) = transfers(&other, &layout::all(), false).expect_err("another hash");
        assert_eq!((map, why.as_str()), (maps::FLOW_HEADS6, "what is in it is encoded in another way"));
        let mut other = found();
        let active = other.get_mut(maps::ACTIVE).expect("it is there");
        *active = active.replace("count@", "places@");
        assert!(transfers(&other, &layout::all(), false).is_ok());
        let (map, why) = transfers(&other, &layout::all(), true).expect_err("sockets count, too");
        assert!(map == maps::ACTIVE && why.contains("[sockets]"), "{map}: {why}");
    }

    #[test]
    fn versions_are_compared_without_their_patches() {
        assert_eq!(minor("0.1.9"), Some((0, 1)));
        assert!(minor("0.2.0") > minor("0.1.9"));
        assert!(minor("0.10.0") > minor("0.9.0"));
        assert!(minor("") < minor("0.1.0"));
    }
}
