//! Entries of a map, copied into one that has another layout for them.

use std::os::fd::AsFd;

use aya::maps::{MapData, MapType};

use super::{DatapathError, layout::Copying, mapping::Bytes, raw};

/// Bytes before the data of a key of an LPM trie: how many of its bits count (`struct bpf_lpm_trie_key`).
const PREFIX_LENGTH: usize = 4;

/// A map, and how its entries are to be made in another.
pub struct Copied<'a> {
    /// Its name.
    pub name: &'a str,
    /// How keys are made.
    pub key: &'a Copying,
    /// How values are made.
    pub value: &'a Copying,
}

impl Copied<'_> {
    /// Makes the new map say what the old one does. The new one is nobody else's.
    ///
    /// # Errors
    /// The kernel refuses, or what is in the old one has no room in the new one.
    pub fn copy(&self, old: &MapData, new: &MapData) -> Result<(), DatapathError> {
        let info = old.info().map_err(DatapathError::kernel(self.name))?;
        match info.map_type().map_err(DatapathError::kernel(self.name))? {
            MapType::Array => self.copy_array(old, new, 1),
            MapType::PerCpuArray => {
                let cpus = aya::util::nr_cpus().map_err(|(path, e)| DatapathError::io(path)(e))?;
                self.copy_array(old, new, cpus)
            }
            MapType::LpmTrie => self.copy_keys(old, new, PREFIX_LENGTH),
            MapType::Hash => self.copy_keys(old, new, 0),
            other => Err(self.refused(format!("maps of the kind {other:?} can't be copied"))),
        }
    }

    fn refused(&self, error: String) -> DatapathError {
        DatapathError::Kernel { what: self.name.into(), error }
    }

    fn entries(&self, map: &MapData) -> Result<u32, DatapathError> {
        Ok(map.info().map_err(DatapathError::kernel(self.name))?.max_entries())
    }

    /// `copies`: of each value; 1, or one a CPU.
    fn copy_array(&self, old: &MapData, new: &MapData, copies: usize) -> Result<(), DatapathError> {
        let failed = || DatapathError::io(self.name);
        let info = old.info().map_err(DatapathError::kernel(self.name))?;
        // Of per-CPU arrays each CPU's value begins at a multiple of eight.
        let aligned = |bytes: usize| if copies > 1 { bytes.next_multiple_of(8) } else { bytes };
        let (from, to) = (aligned(info.value_size() as usize), aligned(self.value.bytes()));
        let (mut before, mut after, mut there) =
            (vec![0; from * copies], vec![0; to * copies], vec![0; to * copies]);
        let room = self.entries(new)?;
        for index in 0..info.max_entries() {
            raw::lookup(old.fd().as_fd(), &index.to_ne_bytes(), &mut before).map_err(failed())?;
            if index >= room {
                if before.iter().any(|byte| *byte != 0) {
                    return Err(
                        self.refused(format!("entry {index} is in use, and there is room for {room}"))
                    );
                }
                continue;
            }
            for (old, new) in before.chunks_exact(from).zip(after.chunks_exact_mut(to)) {
                self.value.copy(old, new);
            }
            // Nearly all are empty, before and after.
            raw::lookup(new.fd().as_fd(), &index.to_ne_bytes(), &mut there).map_err(failed())?;
            if there != after {
                raw::update(new.fd().as_fd(), &index.to_ne_bytes(), &after).map_err(failed())?;
            }
        }
        Ok(())
    }

    /// `prefix`: bytes of a key that come before what its layout describes.
    fn copy_keys(&self, old: &MapData, new: &MapData, prefix: usize) -> Result<(), DatapathError> {
        let failed = || DatapathError::io(self.name);
        let info = old.info().map_err(DatapathError::kernel(self.name))?;
        let mut key = vec![0; info.key_size() as usize];
        let mut after = vec![0; prefix + self.key.bytes()];
        while raw::next_key(new.fd().as_fd(), None, &mut after).map_err(failed())? {
            raw::delete(new.fd().as_fd(), &after).map_err(failed())?;
        }
        let (mut value, mut made) = (vec![0; info.value_size() as usize], vec![0; self.value.bytes()]);
        let mut more = raw::next_key(old.fd().as_fd(), None, &mut key).map_err(failed())?;
        while more {
            if raw::lookup(old.fd().as_fd(), &key, &mut value).map_err(failed())? {
                after[..prefix].copy_from_slice(&key[..prefix]);
                self.key.copy(&key[prefix..], &mut after[prefix..]);
                self.value.copy(&value, &mut made);
                raw::update(new.fd().as_fd(), &after, &made).map_err(failed())?;
            }
            let last = key.clone();
            more = raw::next_key(old.fd().as_fd(), Some(&last), &mut key).map_err(failed())?;
        }
        Ok(())
    }
}

/// A flow table's two maps.
pub struct Table {
    heads: Bytes,
    buckets: Bytes,
}

impl Table {
    /// Over these. To be written, too, if `write`.
    ///
    /// # Errors
    /// They can't be mapped, or aren't of one length.
    pub fn over(heads: &MapData, buckets: &MapData, write: bool) -> Result<Self, DatapathError> {
        let (heads, buckets) =
            (Bytes::new(heads, "heads of flows", write)?, Bytes::new(buckets, "flows", write)?);
        if heads.len() != buckets.len() || heads.size() != size_of::<u64>() {
            let error = format!("{} heads, {} buckets", heads.len(), buckets.len());
            return Err(DatapathError::Kernel { what: "flow table".into(), error });
        }
        Ok(Self { heads, buckets })
    }

    /// Makes this table say what the old one does: every entry in the same lane, so that what points to it is right. This one is nobody else's;
    /// of an old one that is in use, entries that come or go meanwhile may be missed, or be there by halves.
    ///
    /// # Errors
    /// They are not of one length.
    pub fn copy(&self, old: &Self, bucket: &Copying) -> Result<(), DatapathError> {
        if self.heads.len() != old.heads.len() {
            let error = format!("{} buckets before, {} now", old.heads.len(), self.heads.len());
            return Err(DatapathError::Kernel { what: "flow table".into(), error });
        }
        let (mut before, mut after) = (vec![0; old.buckets.size()], vec![0; self.buckets.size()]);
        let (mut head, mut there) = ([0; 8], [0; 8]);
        for index in 0..old.heads.len() {
            old.heads.read(index, &mut head);
            self.heads.read(index, &mut there);
            // Nothing is in it, nor was when it was last copied.
            if head == there && head == [0; 8] {
                continue;
            }
            old.buckets.read(index, &mut before);
            bucket.copy(&before, &mut after);
            self.buckets.write(index, &after);
            self.heads.write(index, &head);
        }
        Ok(())
    }
}
