//! Operations on rows of matrices. Each launches one kernel and returns a new array.
//!
//! Matrices are contiguous; an array may be longer than its matrix. The operations are those of [`crate::kernels`],
//! with their bits. All of them panic if an array is too short.

use super::device::{Arg, Array, Device, elements};
use crate::kernels::attention::AttentionHeads;
use crate::kernels::rope::RopeTable;

/// Threads of a block: `BLOCK_SIZE` of `kernels/common.cu`.
pub(super) const THREADS: usize = 128;
/// Elements of a partial sum's lanes: `LANES` of `kernels/common.cu`.
const LANES: usize = 16;

/// A count or an index as a kernel's parameter.
///
/// # Panics
/// Panics if it needs more than 32 bits.
#[track_caller]
pub(super) fn word(n: usize) -> Arg<'static> {
    match u32::try_from(n) {
        Ok(n) => Arg::U32(n),
        Err(_) => panic!("{n} is too large for a kernel"),
    }
}

/// Number of blocks that hold this many threads.
pub(super) fn blocks(threads: usize) -> usize {
    threads.div_ceil(THREADS)
}

/// A grid with a thread for each element of [rows, width].
fn by_row(rows: usize, width: usize) -> [usize; 3] {
    [rows, blocks(width), 1]
}

#[track_caller]
fn check(name: &str, array: &Array, least: usize) {
    assert!(
        least <= array.len(),
        "{name}: {} elements, expected {least}",
        array.len()
    );
}

/// embeddings [entries, C], ids `[rows]` (u32) -> [rows, C]. A row is NaN if its id is not below `entries`.
#[track_caller]
pub fn embedding(device: &Device, embeddings: &Array, ids: &Array, rows: usize, c: usize) -> Array {
    check("ids", ids, rows);
    let y = device.empty(elements(&[rows, c]));
    let entries = embeddings.len() / c.max(1);
    let args = [
        embeddings.into(),
        ids.into(),
        (&y).into(),
        word(entries),
        word(c),
    ];
    // SAFETY: the kernel's parameters; it reads `rows` ids and entries below `entries`, and writes [rows, C].
    unsafe { device.launch("gather_rows", by_row(rows, c), THREADS, &args) };
    y
}

/// x [rows, C], weight `[C]` -> x / √(mean x² + ε) · weight, [rows, C], as [`crate::kernels::norm`] computes it.
#[track_caller]
pub fn rms_norm(
    device: &Device,
    x: &Array,
    weight: &Array,
    rows: usize,
    c: usize,
    eps: f32,
) -> Array {
    let n = elements(&[rows, c]);
    check("x", x, n);
    check("weight", weight, c);
    let y = device.empty(n);
    let args = [x.into(), weight.into(), (&y).into(), word(c), eps.into()];
    // SAFETY: the kernel's parameters; a block for each row of x and y, and a weight with C elements.
    unsafe { device.launch("rms_norm", [rows, 1, 1], THREADS, &args) };
    y
}

/// qkv [rows, (H + 2 G) D], weights `[D]` -> [rows, (H + 2 G) D]: RMSNorm of each query and key head; values are
/// copied.
#[track_caller]
pub fn qk_norm(
    device: &Device,
    qkv: &Array,
    q_weight: &Array,
    k_weight: &Array,
    heads: AttentionHeads,
    rows: usize,
    eps: f32,
) -> Array {
    let [all, n] = sizes(heads, rows);
    check("qkv", qkv, n);
    check("weight of queries", q_weight, heads.size);
    check("weight of keys", k_weight, heads.size);
    let y = device.empty(n);
    let args = [
        qkv.into(),
        q_weight.into(),
        k_weight.into(),
        (&y).into(),
        word(heads.query),
        word(heads.key_value),
        word(heads.size),
        eps.into(),
    ];
    let grid = [rows, all.div_ceil(THREADS / LANES), 1];
    // SAFETY: the kernel's parameters; qkv and y have `rows` rows of these heads, and the weights a head's elements.
    unsafe { device.launch("qk_norm", grid, THREADS, &args) };
    y
}

/// Heads of a row of qkv, and elements of all rows; their index calculations fit the kernels' 32 bits.
#[track_caller]
pub(super) fn sizes(heads: AttentionHeads, rows: usize) -> [usize; 2] {
    let AttentionHeads {
        query,
        key_value,
        size,
    } = heads;
    assert!(
        key_value > 0 && query.is_multiple_of(key_value),
        "{query} query heads share {key_value} key heads"
    );
    let width = (key_value.checked_mul(2))
        .and_then(|n| n.checked_add(query))
        .and_then(|n| n.checked_mul(size))
        .filter(|&width| u32::try_from(width).is_ok());
    let width = width.unwrap_or_else(|| panic!("{heads:?} are too large for a kernel"));
    [query + 2 * key_value, elements(&[rows, width])]
}

/// A [`RopeTable`] on a device.
#[derive(Clone, Debug)]
pub struct Angles {
    cos: Array,
    sin: Array,
    half: usize,
    positions: usize,
}

impl Angles {
    /// Uploads the table.
    pub fn new(device: &Device, table: &RopeTable) -> Self {
        let (half, positions) = (table.half(), table.positions());
        let [cos, sin] = [table.cosines(), table.sines()].map(|x| {
            assert_eq!(x.len(), elements(&[positions, half]), "angles of a table");
            device.upload(x)
        });
        Self {
            cos,
            sin,
            half,
            positions,
        }
    }
}

/// qkv [rows, (H + 2 G) D], positions `[rows]` (u32) -> the first H + G heads rotated by the angles of the row's
/// position, values copied. Rotated heads are NaN if the table does not reach the position.
#[track_caller]
pub fn rope(
    device: &Device,
    qkv: &Array,
    angles: &Angles,
    heads: AttentionHeads,
    positions: &Array,
    rows: usize,
) -> Array {
    let [all, n] = sizes(heads, rows);
    check("qkv", qkv, n);
    check("positions", positions, rows);
    assert_eq!(heads.size, 2 * angles.half, "head size and RoPE table");
    let y = device.empty(n);
    let args = [
        qkv.into(),
        (&angles.cos).into(),
        (&angles.sin).into(),
        positions.into(),
        (&y).into(),
        word(angles.positions),
        word(angles.half),
        word(heads.query + heads.key_value),
        word(all),
    ];
    let grid = by_row(rows, all * angles.half);
    // SAFETY: the kernel's parameters; qkv and y have `rows` rows of these heads, there are `rows` positions, and the
    // table has its number of positions.
    unsafe { device.launch("rope", grid, THREADS, &args) };
    y
}

/// gu [rows, 2 F] (gate, then up) -> silu(gate) · up, [rows, F].
#[track_caller]
pub fn swiglu(device: &Device, gu: &Array, rows: usize, f: usize) -> Array {
    check("gate and up", gu, elements(&[rows, 2, f]));
    let y = device.empty(elements(&[rows, f]));
    let args = [gu.into(), (&y).into(), word(f)];
    // SAFETY: the kernel's parameters; gu is [rows, 2 F], y is [rows, F].
    unsafe { device.launch("swiglu", by_row(rows, f), THREADS, &args) };
    y
}

/// x · sigmoid(x), element by element.
pub fn silu(device: &Device, x: &Array) -> Array {
    let y = device.empty(x.len());
    let args = [x.into(), (&y).into(), Arg::U64(x.len() as u64)];
    // SAFETY: the kernel's parameters; x and y have this length.
    unsafe { device.launch("silu", [blocks(x.len()), 1, 1], THREADS, &args) };
    y
}

/// x + z, element by element.
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn add(device: &Device, x: &Array, z: &Array) -> Array {
    assert_eq!(x.len(), z.len(), "add: lengths");
    let y = device.empty(x.len());
    let n = Arg::U64(x.len() as u64);
    let args = [x.into(), z.into(), (&y).into(), n];
    // SAFETY: the kernel's parameters; all three have this length.
    unsafe { device.launch("add", [blocks(x.len()), 1, 1], THREADS, &args) };
    y
}

/// x [rows, C], bias `[C]` -> x + bias, [rows, C].
#[track_caller]
pub fn add_bias(device: &Device, x: &Array, bias: &Array, rows: usize, c: usize) -> Array {
    let n = elements(&[rows, c]);
    check("x", x, n);
    check("bias", bias, c);
    let y = device.empty(n);
    let args = [x.into(), bias.into(), (&y).into(), word(c)];
    // SAFETY: the kernel's parameters; x and y are [rows, C], the bias has C elements.
    unsafe { device.launch("add_bias", by_row(rows, c), THREADS, &args) };
    y
}

/// x [rows, A], z [rows, B] -> [rows, A + B], x first.
#[track_caller]
pub fn concat(device: &Device, x: &Array, z: &Array, rows: usize, a: usize, b: usize) -> Array {
    check("x", x, elements(&[rows, a]));
    check("z", z, elements(&[rows, b]));
    let width = a.checked_add(b).expect("concat: a width");
    // The kernel adds the widths in 32 bits.
    word(width);
    let y = device.empty(elements(&[rows, width]));
    let args = [x.into(), z.into(), (&y).into(), word(a), word(b)];
    // SAFETY: the kernel's parameters; x is [rows, A], z is [rows, B], y is [rows, A + B].
    unsafe { device.launch("concat", by_row(rows, width), THREADS, &args) };
    y
}

/// logits [rows, V], targets `[rows]` (u32) -> [2, rows]: the losses, then 1 if the target has the largest logit (the
/// lowest id wins a tie), else 0, as [`crate::kernels::cross_entropy`] computes them.
#[track_caller]
pub fn cross_entropy(
    device: &Device,
    logits: &Array,
    targets: &Array,
    rows: usize,
    v: usize,
) -> Array {
    check("logits", logits, elements(&[rows, v]));
    check("targets", targets, rows);
    let y = device.empty(elements(&[2, rows]));
    let args = [
        logits.into(),
        targets.into(),
        (&y).into(),
        word(rows),
        word(v),
    ];
    // SAFETY: the kernel's parameters; a block for each row of the logits, `rows` targets, and two results per row.
    unsafe { device.launch("cross_entropy", [rows, 1, 1], THREADS, &args) };
    y
}
