//! A cheap look at whether compressing is worth its time.

/// Bytes that are looked at together.
const STRIPE: usize = 64;
/// Stripes of a grain that are looked at.
const STRIPES: usize = 64;

/// Whether compression is likely to make `bytes` smaller by more than it is worth: it looks at how evenly the byte values
/// are spread over 4 KiB taken from all over the grain. Bytes that are compressed or encrypted already are spread as if by
/// dice.
///
/// For n dice, the sum of the squared counts is about n + n²/256. Text, code and tables have several times as much;
/// two percent more is where deflate begins to gain a sector or two.
pub(super) fn compressible(bytes: &[u8]) -> bool {
    let mut counts = [[0u16; 256]; 4];
    let step = (bytes.len() / STRIPES).max(STRIPE);
    let mut seen = 0;
    for stripe in bytes.chunks(step).map(|chunk| &chunk[..chunk.len().min(STRIPE)]) {
        // Four tables, so that a run of one value does not wait for its own counter.
        let (quads, rest) = stripe.as_chunks::<4>();
        for quad in quads {
            for (counts, byte) in counts.iter_mut().zip(quad) {
                counts[usize::from(*byte)] += 1;
            }
        }
        for byte in rest {
            counts[0][usize::from(*byte)] += 1;
        }
        seen += stripe.len() as u64;
    }
    let [a, b, c, d] = &counts;
    let squares: u64 = (0..256)
        .map(|value| u64::from(a[value] + b[value] + c[value] + d[value]).pow(2))
        .sum();
    let dice = seen + seen * seen / 256;
    squares > dice + dice / PART
}

/// The part of [`compressible`]'s measure by which bytes must differ from dice.
const PART: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as even as dice.
    fn dice(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn tells_text_from_dice() {
        assert!(!compressible(&dice(65536)));
        let text = b"the quick brown fox jumps over the lazy dog; ".repeat(1500);
        assert!(compressible(&text[..65536]));
        let code: Vec<u8> = dice(65536).iter().map(|byte| byte & 0x7f).collect();
        assert!(compressible(&code));
        let mut half = dice(65536);
        half[..32768].fill(0);
        assert!(compressible(&half));
    }
}
