//! A flow table, as tests look at it and meddle with it.

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{Array, Map, MapData},
};
use flowpin::datapath::flows::FlowTable;
use lb_common::{
    abi::{Addr, Bucket, Flow, FlowKey, Proto},
    flow_table::{free, lowest, without},
};

/// A protocol that is never balanced: "use for experimentation" (RFC 3692).
const FOREIGN: Proto = Proto(253);
/// A tag that no key has.
const STUFFING: u8 = 0xff;

/// The two maps, and the agent's view of them.
pub struct Flows<A: Addr>
where
    Bucket<A>: Pod,
{
    table: FlowTable<A>,
    heads: Array<MapData, u64>,
    buckets: Array<MapData, Bucket<A>>,
}

impl<A: Addr> Flows<A>
where
    Flow<A>: Pod,
    Bucket<A>: Pod,
{
    /// Over two maps of a loaded object.
    ///
    /// # Errors
    /// They are of another kind, or can't be mapped.
    pub fn over(heads: Map, buckets: Map, seed: u64) -> Result<Self> {
        let (Map::Array(heads), Map::Array(buckets)) = (heads, buckets) else {
            anyhow::bail!("flow tables are arrays");
        };
        let table = FlowTable::over(&heads, MapData::from_id(buckets.info()?.id())?, seed)?;
        Ok(Self { table, heads: Map::Array(heads).try_into()?, buckets: Map::Array(buckets).try_into()? })
    }

    /// The entry with this key.
    pub fn get(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        self.table.get(key)
    }

    /// All entries.
    pub fn entries(&self) -> Vec<Flow<A>> {
        self.table.entries()
    }

    /// Which bucket and lane this entry is in.
    fn place(&self, wanted: impl Fn(&Flow<A>) -> bool) -> Result<Option<(u32, usize)>> {
        for bucket in 0..self.table.buckets() {
            let lanes = self.buckets.get(&bucket, 0)?.lanes;
            if let Some(lane) = lanes.iter().position(|flow| flow.state != 0 && wanted(flow)) {
                return Ok(Some((bucket, lane)));
            }
        }
        Ok(None)
    }

    /// Writes over the entry with this flow's key.
    ///
    /// # Errors
    /// There is none, or the kernel refuses.
    pub fn replace(&mut self, flow: Flow<A>) -> Result<()> {
        let key = flow.key();
        let (bucket, lane) = self.place(|f| f.key() == key)?.context("the flow is there")?;
        let mut value = self.buckets.get(&bucket, 0)?;
        value.lanes[lane] = flow;
        Ok(self.buckets.set(bucket, value, 0)?)
    }

    fn free(&mut self, bucket: u32, lane: usize) -> Result<()> {
        let mut value = self.buckets.get(&bucket, 0)?;
        value.lanes[lane] = Flow::default();
        self.buckets.set(bucket, value, 0)?;
        let head = self.heads.get(&bucket, 0)?;
        Ok(self.heads.set(bucket, head & without(lane), 0)?)
    }

    /// Removes the entry with this key, as if it had never been.
    ///
    /// # Errors
    /// There is none, or the kernel refuses.
    pub fn remove(&mut self, key: &FlowKey<A>) -> Result<()> {
        let (bucket, lane) = self.place(|f| f.key() == *key)?.context("the flow is there")?;
        self.free(bucket, lane)
    }

    /// Removes all entries.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn clear(&mut self) -> Result<()> {
        for bucket in 0..self.table.buckets() {
            if self.heads.get(&bucket, 0)? != 0 {
                self.heads.set(bucket, 0, 0)?;
                self.buckets.set(bucket, Bucket::default(), 0)?;
            }
        }
        Ok(())
    }

    /// Puts foreign entries into all lanes that are free.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stuff(&mut self) -> Result<()> {
        for bucket in 0..self.table.buckets() {
            let mut head = self.heads.get(&bucket, 0)?;
            let mut value = self.buckets.get(&bucket, 0)?;
            while free(head) != 0 {
                let lane = lowest(free(head));
                head |= u64::from(STUFFING) << (8 * lane);
                value.lanes[lane] = Flow { state: 1 << 63, proto: FOREIGN, ..Flow::default() };
            }
            self.heads.set(bucket, head, 0)?;
            self.buckets.set(bucket, value, 0)?;
        }
        Ok(())
    }

    /// Takes one foreign entry out again.
    ///
    /// # Errors
    /// There is none, or the kernel refuses.
    pub fn unstuff(&mut self) -> Result<()> {
        let (bucket, lane) = self.place(|f| f.proto == FOREIGN)?.context("a foreign entry")?;
        self.free(bucket, lane)
    }
}
