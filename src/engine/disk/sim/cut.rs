//! The power cut: what is found on the disk afterwards, among all that the contract of [`disk`](crate::engine::disk)
//! allows, chosen by a seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::content::Content;
use super::world::{Body, Change, DirBody, FileBody, World, set};

/// What becomes of one kind of unsynced things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All survive, as if they had been synced.
    Keep,
    /// None survives.
    Drop,
    /// The first few survive, in the order in which they were done; the next one in its first part.
    Ordered,
    /// Each survives or not by itself, whatever was done before or after it: each 512 bytes, each size, each name.
    Reorder,
}

/// What a power cut does to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The bytes in files. What is dropped is as it was at the last sync: old bytes, or zeros where there were none.
    pub data: Fate,
    /// The sizes of files. With [`Fate::Ordered`] for both, data and size of a file stop at the same change.
    pub sizes: Fate,
    /// Names made, changed and removed.
    pub names: Fate,
}

impl Rules {
    /// Everything survives.
    pub const KEEP_ALL: Self = Self::all(Fate::Keep);
    /// Only what was synced survives.
    pub const DROP_ALL: Self = Self::all(Fate::Drop);
    /// Each file, and the names, stop somewhere, without disorder.
    pub const ORDERED: Self = Self::all(Fate::Ordered);
    /// Whatever is allowed.
    pub const REORDER_ALL: Self = Self::all(Fate::Reorder);
    /// Sizes and names survive, but data is torn.
    pub const TEAR: Self = Self { data: Fate::Reorder, sizes: Fate::Keep, names: Fate::Keep };

    /// The same fate for everything.
    pub const fn all(fate: Fate) -> Self {
        Self { data: fate, sizes: fate, names: fate }
    }

    /// Any combination of fates, chosen by `seed`: what a model test wants.
    pub fn any(seed: u64) -> Self {
        const FATES: [Fate; 4] = [Fate::Keep, Fate::Drop, Fate::Ordered, Fate::Reorder];
        let mut dice = Dice::new(seed);
        let mut fate = || FATES[dice.below(FATES.len())];
        Self { data: fate(), sizes: fate(), names: fate() }
    }
}

/// Seeded numbers (splitmix64): the same seed gives the same disk.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What a disk writes as one: it is there or not, never in part.
const SECTOR_BYTES: u64 = 512;

/// The disk as it is found after the power came back: all of it is durable now.
pub(super) fn power_cut(before: &World, seed: u64, rules: Rules) -> World {
    let mut dice = Dice::new(seed);
    let mut world = before.clone();
    cut_names(&mut world, rules.names, &mut dice);
    world.forget_nameless();
    for inode in world.inodes.values_mut() {
        if let Body::File(file) = &inode.body
            && !file.is_settled()
        {
            let found = cut_file(file, rules, &mut dice);
            Arc::make_mut(inode).body = Body::File(FileBody::settled(found));
        }
    }
    world
}

fn cut_names(world: &mut World, fate: Fate, dice: &mut Dice) {
    let changes = std::mem::take(&mut world.unsynced_names);
    let first_few = dice.below(changes.len() + 1);
    for (position, change) in changes.iter().enumerate() {
        let kept = match fate {
            Fate::Keep => true,
            Fate::Drop => false,
            Fate::Ordered => position < first_few,
            Fate::Reorder => dice.below(2) == 0,
        };
        if kept {
            for new in &change.names {
                set(&mut world.dir_mut(new.dir).durable, new);
            }
        }
    }
    for inode in world.inodes.values_mut() {
        if let Body::Dir(dir) = &inode.body
            && dir.now != dir.durable
        {
            let found = DirBody { now: dir.durable.clone(), durable: dir.durable.clone() };
            Arc::make_mut(inode).body = Body::Dir(found);
        }
    }
}

fn cut_file(file: &FileBody, rules: Rules, dice: &mut Dice) -> Content {
    let changes = &file.unsynced;
    let first_few = dice.below(changes.len() + 1);
    let size = cut_size(file, rules.sizes, first_few, dice);
    let mut content = file.durable.clone();
    match rules.data {
        Fate::Drop => {}
        Fate::Keep => changes.iter().for_each(|change| change.apply(&mut content)),
        Fate::Ordered => {
            changes[..first_few].iter().for_each(|change| change.apply(&mut content));
            if let Some(Change::Write { offset, bytes }) = changes.get(first_few) {
                content.write_at(&bytes[..first_sectors(*offset, bytes.len(), dice)], *offset);
            }
        }
        Fate::Reorder => reorder(changes, &mut content, dice),
    }
    content.set_len(size);
    content
}

fn cut_size(file: &FileBody, fate: Fate, first_few: usize, dice: &mut Dice) -> u64 {
    let changes_counted = match fate {
        Fate::Keep => file.unsynced.len(),
        Fate::Drop => 0,
        Fate::Ordered => first_few,
        Fate::Reorder => dice.below(file.unsynced.len() + 1),
    };
    file.unsynced[..changes_counted].iter().fold(file.durable.bytes(), |size, change| change.size_after(size))
}

/// How many of the bytes are there when a write stopped at a sector's border.
fn first_sectors(offset: u64, length: usize, dice: &mut Dice) -> usize {
    let borders = ((offset + length as u64) / SECTOR_BYTES - offset / SECTOR_BYTES) as usize;
    match dice.below(borders + 1) {
        0 => 0,
        border => ((offset / SECTOR_BYTES + border as u64) * SECTOR_BYTES - offset) as usize,
    }
}

/// Gives each sector the state that it had after some number of the changes that touch it. The cache writes a sector as
/// it is at that moment, so a later change never gets there without the earlier ones to the same sector.
fn reorder(changes: &[Change], content: &mut Content, dice: &mut Dice) {
    let mut touches: BTreeMap<u64, usize> = BTreeMap::new();
    for change in changes {
        for sector in sectors(change) {
            *touches.entry(sector).or_default() += 1;
        }
    }
    // From here on, how many changes each sector still gets.
    for times in touches.values_mut() {
        *times = match dice.below(4) {
            0 => 0,
            1 => *times,
            _ => dice.below(*times + 1),
        };
    }
    for change in changes {
        for sector in sectors(change) {
            let times = touches.get_mut(&sector).expect("every sector of every change was counted");
            if *times > 0 {
                *times -= 1;
                apply_in_sector(change, sector, content);
            }
        }
    }
}

/// The sectors whose bytes a change touches. One that only makes the file longer touches none.
fn sectors(change: &Change) -> std::ops::Range<u64> {
    let (from, to) = bytes_touched(change);
    if from >= to { 0..0 } else { from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) }
}

fn bytes_touched(change: &Change) -> (u64, u64) {
    match change {
        Change::Write { offset, bytes } => (*offset, offset + bytes.len() as u64),
        Change::Resize { from, to } => (*to, *from),
    }
}

fn apply_in_sector(change: &Change, sector: u64, content: &mut Content) {
    let (first, end) = bytes_touched(change);
    let from = first.max(sector * SECTOR_BYTES);
    let to = end.min((sector + 1) * SECTOR_BYTES);
    match change {
        Change::Write { offset, bytes } => {
            content.write_at(&bytes[(from - offset) as usize..(to - offset) as usize], from);
        }
        Change::Resize { .. } => content.write_at(&[0; SECTOR_BYTES as usize][..(to - from) as usize], from),
    }
}
