//! GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d), and the code over it, a byte at a time.
//!
//! Shard i of a batch holds, at each offset, the value at the point i of the one polynomial of degree below k that has the k data bytes as its values
//! at the points 0 to k - 1. So what any k shards say of another one is Lagrange's interpolation. It is the same matrix as Vandermonde's
//! (row r, column c: r^c) times the inverse of its upper square, which is how `reed-solomon-erasure` and klauspost's reedsolomon make theirs: both
//! map the values at the first k points to those at all n. Slow on purpose: it judges proofs and is the oracle of the tests of bpi-availability.

/// x^8 = x^4 + x^3 + x^2 + 1.
const REDUCTION: u8 = 0x1d;

/// Powers of x twice over, so that a sum of two logarithms needs no division, and logarithms. `LOG[0]` is never used.
const TABLES: ([u8; 510], [u8; 256]) = {
    let (mut exp, mut log) = ([0; 510], [0; 256]);
    let (mut value, mut power): (u8, usize) = (1, 0);
    while power < 255 {
        exp[power] = value;
        exp[power + 255] = value;
        log[value as usize] = power as u8;
        value = (value << 1) ^ if value & 0x80 == 0 { 0 } else { REDUCTION };
        power += 1;
    }
    (exp, log)
};
static EXP: [u8; 510] = TABLES.0;
static LOG: [u8; 256] = TABLES.1;

/// The product. The sum, and the difference, is `^`.
pub fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    EXP[usize::from(LOG[usize::from(a)]) + usize::from(LOG[usize::from(b)])]
}

/// What a number other than 0 is multiplied by to give 1; of 0, 0.
pub fn inverse(a: u8) -> u8 {
    if a == 0 { 0 } else { EXP[255 - usize::from(LOG[usize::from(a)])] }
}

/// What the values at different `points` are to be multiplied by, so that their sum is the value at `at` of the polynomial through them.
pub fn coefficients(points: &[u8], at: u8) -> Vec<u8> {
    let basis = |own: &u8| {
        let others = points.iter().filter(|other| *other != own);
        let (above, below) =
            others.fold((1, 1), |(above, below), other| (multiply(above, at ^ other), multiply(below, own ^ other)));
        multiply(above, inverse(below))
    };
    points.iter().map(basis).collect()
}

/// The row of the systematic matrix for a shard: what the bytes of the `k` data shards, 1 to 256, are multiplied by.
pub fn row(k: u16, shard: u8) -> Vec<u8> {
    let points: Vec<u8> = (0..=255).take(k.into()).collect();
    coefficients(&points, shard)
}

/// The sum of rows of bytes, each multiplied by its coefficient. As long as the longest.
pub fn combine<'a>(coefficients: &[u8], rows: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut sum = Vec::new();
    for (coefficient, row) in coefficients.iter().zip(rows) {
        sum.resize(sum.len().max(row.len()), 0);
        sum.iter_mut().zip(row).for_each(|(sum, byte)| *sum ^= multiply(*coefficient, *byte));
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The schoolbook product, bit by bit.
    fn by_bits(a: u8, b: u8) -> u8 {
        let product = (0..8).filter(|bit| b >> bit & 1 == 1).fold(0u16, |sum, bit| sum ^ u16::from(a) << bit);
        (8..16).rev().fold(product, |left, bit| if left >> bit & 1 == 1 { left ^ 0x11d << (bit - 8) } else { left })
            as u8
    }

    #[test]
    fn products_and_inverses_are_those_of_the_polynomial() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), by_bits(a, b), "{a} {b}");
            }
            assert_eq!(multiply(a, inverse(a)), u8::from(a != 0));
        }
    }

    #[test]
    fn the_matrix_is_vandermondes_times_the_inverse_of_its_top() {
        for (k, n) in [(1, 2), (4, 12), (16, 32), (16, 48), (64, 256)] {
            let power = |base: u8, exponent: u16| (0..exponent).fold(1, |product, _| multiply(product, base));
            for shard in (0..n).map(|shard| shard as u8) {
                // row * top = the Vandermonde row, so row = that row * inverse of top.
                let row = row(k, shard);
                for column in 0..k {
                    let products = (0..k).map(|at| multiply(row[usize::from(at)], power(at as u8, column)));
                    assert_eq!(products.fold(0, |sum, each| sum ^ each), power(shard, column), "{k} {shard} {column}");
                }
                if u16::from(shard) < k {
                    assert!(row.iter().enumerate().all(|(at, each)| *each == u8::from(at == usize::from(shard))));
                }
            }
        }
    }

    #[test]
    fn any_k_points_give_all_the_others() {
        let data = [[3u8, 200], [0, 1], [255, 77], [9, 9]];
        let shards: Vec<Vec<u8>> =
            (0..12).map(|shard| combine(&row(4, shard), data.iter().map(|each| &each[..]))).collect();
        let points = [11, 2, 7, 5];
        for at in 0..12 {
            let rows = points.iter().map(|point| &shards[usize::from(*point)][..]);
            assert_eq!(combine(&coefficients(&points, at), rows), shards[usize::from(at)]);
        }
    }
}
