//! Layouts of maps as they were found, and what becomes of an entry in another one: pure. What they say: `lb_common::abi::layout`.

use std::str::FromStr;

use lb_common::abi::layout::{Keeper, MapLayout};

/// A map's layout, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    meaning: u64,
    /// How many; 0: as many as the agent asked for. It counts only whether that is another number.
    entries: u32,
    /// Its key.
    pub key: Shape,
    /// Its value.
    pub value: Shape,
}

/// Records, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    size: usize,
    count: usize,
    fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: String,
    offset: usize,
    size: usize,
}

fn field(text: &str) -> Option<Field> {
    let (name, place) = text.split_once('@')?;
    let (offset, size) = place.split_once('+')?;
    Some(Field { name: name.into(), offset: offset.parse().ok()?, size: size.parse().ok()? })
}

fn shape(text: &str) -> Option<Shape> {
    let (size, fields) = text.split_once(':').unwrap_or((text, ""));
    let (size, count) = size.split_once('x')?;
    let (size, count): (usize, usize) = (size.parse().ok()?, count.parse().ok()?);
    let fields = fields.split(',').filter(|text| !text.is_empty());
    let fields = fields.map(field).collect::<Option<Vec<Field>>>()?;
    let within = |f: &Field| f.offset.checked_add(f.size).is_some_and(|end| end <= size);
    // What no build would write: a record of more than a page's worth of pages.
    (size.checked_mul(count)? <= 1 << 20 && fields.iter().all(within)).then_some(Shape {
        size,
        count,
        fields,
    })
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let mut words = text.split(' ');
            let mut word = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
            Some(Self {
                meaning: u64::from_str_radix(word("meaning")?, 16).ok()?,
                entries: word("entries")?.parse().ok()?,
                key: shape(word("key")?)?,
                value: shape(word("value")?)?,
            })
        };
        read().ok_or_else(|| format!("its layout \"{text}\" isn't understood"))
    }
}

impl Layout {
    /// This build's.
    ///
    /// # Errors
    /// None: what is written can be read.
    pub fn own(map: &MapLayout) -> Result<Self, String> {
        map.to_string().parse()
    }
}

/// What becomes of a map's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The map is used as it is.
    Same,
    /// They are copied, keys and values.
    Copied(Copying, Copying),
    /// The map begins empty.
    Anew,
}

/// What becomes of the entries of a map that was found with the layout `old`, or wasn't there.
///
/// # Errors
/// They would be lost, and must not be. Why they can't be taken over.
pub fn transfer(keeper: Keeper, old: Option<&Layout>, new: &Layout) -> Result<Transfer, String> {
    let Some(old) = old else { return Ok(Transfer::Anew) };
    if old == new {
        return Ok(Transfer::Same);
    }
    if keeper == Keeper::Nobody {
        return Ok(Transfer::Anew);
    }
    let copied = if old.meaning == new.meaning {
        Copying::between(&old.key, &new.key)
            .and_then(|key| Ok(Transfer::Copied(key, Copying::between(&old.value, &new.value)?)))
    } else {
        Err("what is in it is encoded in another way".to_string())
    };
    match keeper {
        Keeper::Derived => Ok(copied.unwrap_or(Transfer::Anew)),
        _ => copied,
    }
}

/// How a key or value is made of an older or newer one: field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copying {
    from: usize,
    to: usize,
    count: usize,
    /// Where from, where to, how many bytes; in each record.
    parts: Vec<(usize, usize, usize)>,
}

impl Copying {
    /// From one to the other. Fields that only the new one has are zero, those that only the old one has are left out.
    ///
    /// # Errors
    /// A field has another length, or there is another number of records.
    fn between(old: &Shape, new: &Shape) -> Result<Self, String> {
        if old.count != new.count {
            return Err(format!("{} records are in an entry, not {}", old.count, new.count));
        }
        let (from, to, count) = (old.size, new.size, new.count);
        if old.fields.is_empty() || new.fields.is_empty() {
            let alike = old.fields.is_empty() && new.fields.is_empty() && from == to;
            return alike
                .then(|| Self::whole(new))
                .ok_or_else(|| format!("its values have {from} bytes, not {to}"));
        }
        let mut parts = Vec::new();
        for field in new.fields.iter().filter(|field| !field.name.starts_with('_')) {
            let Some(before) = old.fields.iter().find(|before| before.name == field.name) else { continue };
            if before.size != field.size {
                return Err(format!("{} has {} bytes, not {}", field.name, before.size, field.size));
            }
            parts.push((before.offset, field.offset, field.size));
        }
        Ok(Self { from, to, count, parts })
    }

    /// As it is.
    pub fn whole(shape: &Shape) -> Self {
        Self { from: shape.size, to: shape.size, count: shape.count, parts: vec![(0, 0, shape.size)] }
    }

    /// Bytes of what is made.
    pub const fn bytes(&self) -> usize {
        self.to * self.count
    }

    /// Makes one. Bytes that nobody names are 0.
    ///
    /// # Panics
    /// `old` or `new` is shorter than its layout says.
    pub fn copy(&self, old: &[u8], new: &mut [u8]) {
        new[..self.bytes()].fill(0);
        for record in 0..self.count {
            let (old, new) = (&old[record * self.from..], &mut new[record * self.to..]);
            for (from, to, size) in &self.parts {
                new[*to..to + size].copy_from_slice(&old[*from..from + size]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::layout::all;
    use proptest::prelude::*;

    use super::*;

    impl Shape {
        const fn bytes(&self) -> usize {
            self.size * self.count
        }
    }

    fn layout(text: &str) -> Layout {
        text.parse().expect("a layout")
    }

    #[test]
    fn what_is_written_is_read() {
        for map in all() {
            let read = Layout::own(&map).unwrap_or_else(|e| panic!("{}: {e}", map.name));
            assert_eq!(read.value.bytes(), map.value.size * map.value.count);
            assert_eq!(transfer(map.keeper, Some(&read), &read), Ok(Transfer::Same));
        }
        for bad in [
            "",
            "meaning=0",
            "meaning=x entries=1 key=4x1 value=4x1",
            "meaning=0 entries=1 key=4x1 value=4x1:a@2+4",
        ] {
            assert!(bad.parse::<Layout>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_may_change_and_what_may_not() {
        let old = layout("meaning=1 entries=8 key=4x1 value=8x2:a@0+4,b@4+4");
        for (keeper, new, wanted) in [
            (Keeper::Packets, "meaning=1 entries=9 key=4x1 value=8x2:a@0+4,b@4+4", Ok(true)),
            (Keeper::Packets, "meaning=1 entries=8 key=4x1 value=12x2:a@0+4,c@4+4,b@8+4", Ok(true)),
            (Keeper::Packets, "meaning=1 entries=8 key=4x1 value=4x2:b@0+4", Ok(true)),
            (
                Keeper::Packets,
                "meaning=1 entries=8 key=4x1 value=16x2:a@0+8,b@8+8",
                Err("a has 4 bytes, not 8"),
            ),
            (
                Keeper::Agent,
                "meaning=1 entries=8 key=4x1 value=8x3:a@0+4,b@4+4",
                Err("2 records are in an entry, not 3"),
            ),
            (
                Keeper::Agent,
                "meaning=1 entries=8 key=8x1 value=8x2:a@0+4,b@4+4",
                Err("its values have 4 bytes, not 8"),
            ),
            (
                Keeper::Agent,
                "meaning=2 entries=8 key=4x1 value=8x2:a@0+4,b@4+4",
                Err("what is in it is encoded in another way"),
            ),
            (Keeper::Derived, "meaning=2 entries=8 key=4x1 value=8x2:a@0+4,b@4+4", Ok(false)),
            (Keeper::Nobody, "meaning=1 entries=8 key=4x1 value=12x2:a@0+4,b@4+4", Ok(false)),
        ] {
            let found = transfer(keeper, Some(&old), &layout(new))
                .map(|transfer| matches!(transfer, Transfer::Copied(..)));
            assert_eq!(found, wanted.map_err(String::from), "{new}");
        }
        assert_eq!(transfer(Keeper::Packets, None, &old), Ok(Transfer::Anew));
    }

    /// Fields of 1, 2, 4 or 8 bytes, in an order of their own, with what fills up between them.
    fn arranged(names: &[(u8, usize)]) -> Shape {
        let (mut fields, mut end) = (Vec::new(), 0);
        for (name, gap) in names {
            end += gap;
            let size = 1 << (name % 4);
            fields.push(Field { name: format!("f{name}"), offset: end, size });
            end += size;
        }
        fields.push(Field { name: "_pad".into(), offset: end, size: 1 });
        Shape { size: end + 1, count: 2, fields }
    }

    fn value(shape: &Shape, record: usize, name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let field = shape.fields.iter().find(|field| field.name == name)?;
        let at = record * shape.size + field.offset;
        Some(bytes[at..at + field.size].to_vec())
    }

    proptest! {
        #[test]
        fn there_and_back_keeps_what_both_have(
            old in prop::collection::btree_map(0u8..12, 0usize..3, 1..8),
            new in prop::collection::btree_map(0u8..12, 0usize..3, 1..8),
            reversed: bool,
            seed in prop::collection::vec(any::<u8>(), 512),
        ) {
            let (old, mut new): (Vec<_>, Vec<_>) = (old.into_iter().collect(), new.into_iter().collect());
            if reversed {
                new.reverse();
            }
            let (old, new) = (arranged(&old), arranged(&new));
            let before = &seed[..old.bytes()];
            let mut there = vec![0xaa; new.bytes()];
            let mut back = vec![0xaa; old.bytes()];
            Copying::between(&old, &new).unwrap().copy(before, &mut there);
            Copying::between(&new, &old).unwrap().copy(&there, &mut back);
            for record in 0..2 {
                for field in &new.fields {
                    let found = value(&new, record, &field.name, &there);
                    let was = value(&old, record, &field.name, before).filter(|_| field.name != "_pad");
                    prop_assert_eq!(found, Some(was.unwrap_or(vec![0; field.size])));
                }
                for field in &old.fields {
                    let both = new.fields.iter().any(|f| f.name == field.name) && field.name != "_pad";
                    let was = value(&old, record, &field.name, before).filter(|_| both);
                    let found = value(&old, record, &field.name, &back);
                    prop_assert_eq!(found, Some(was.unwrap_or(vec![0; field.size])));
                }
            }
        }
    }
}
