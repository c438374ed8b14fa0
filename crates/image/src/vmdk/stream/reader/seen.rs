//! Which grains of a disk came already.

/// Grains of a page: 4 KiB of bits.
const PAGE: u64 = 32 << 10;

/// One bit for each grain, in pages that are made when they are needed: 2 MiB for each TiB of a disk with grains of
/// 64 KiB.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pages: Vec<Option<Box<[u64; PAGE as usize / 64]>>>,
}

impl Seen {
    /// Notes a grain, and says whether it is new.
    pub(super) fn insert(&mut self, grain: u64) -> bool {
        let page = (grain / PAGE) as usize;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let bits = self.pages[page].get_or_insert_with(|| Box::new([0; PAGE as usize / 64]));
        let (word, bit) = ((grain % PAGE / 64) as usize, 1 << (grain % 64));
        let new = bits[word] & bit == 0;
        bits[word] |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_new_once() {
        let mut seen = Seen::default();
        let grains = [0, 1, 63, 64, PAGE - 1, PAGE, PAGE * 5 + 77];
        assert!(grains.iter().all(|grain| seen.insert(*grain)));
        assert!(!grains.iter().any(|grain| seen.insert(*grain)));
        assert!(seen.insert(2));
    }
}
