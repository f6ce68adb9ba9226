//! Operations on rows of matrices. Each launches one kernel and gives a new array.
//!
//! Matrices are packed, and an array may be longer than its matrix. The operations are those of [`crate::kernels`], with
//! their bits.

use super::device::{Arg, Array, Device};
use crate::kernels::attention::AttentionHeads;
use crate::kernels::rope;

/// Threads of a block: `BLOCK_SIZE` of `kernels/common.cu`.
pub(super) const THREADS: usize = 128;
/// Elements of a partial sum's lanes: `LANES` of `kernels/common.cu`.
const LANES: usize = 16;

/// A count or an index, as kernels take them.
#[track_caller]
pub(super) fn word(n: usize) -> Arg<'static> {
    match u32::try_from(n) {
        Ok(n) => Arg::U32(n),
        Err(_) => panic!("{n} is too large for a kernel"),
    }
}

/// Blocks for so many threads.
pub(super) fn blocks(threads: usize) -> usize {
    threads.div_ceil(THREADS)
}

/// A block's threads for each part of a row.
fn by_row(rows: usize, width: usize) -> [usize; 3] {
    [rows, blocks(width), 1]
}

#[track_caller]
fn check(name: &str, array: &Array, least: usize) {
    assert!(
        least <= array.len(),
        "{name}: {} elements where {least} are used",
        array.len()
    );
}

/// table [entries, C], ids `[rows]` (u32) -> [rows, C]. A row is NaN where its id is no entry.
#[track_caller]
pub fn embedding(device: &Device, table: &Array, ids: &Array, rows: usize, c: usize) -> Array {
    check("ids", ids, rows);
    let y = device.empty(rows * c);
    let entries = table.len() / c.max(1);
    let args = [
        table.into(),
        ids.into(),
        (&y).into(),
        word(entries),
        word(c),
    ];
    device.launch("gather_rows", by_row(rows, c), THREADS, &args);
    y
}

/// x [.., C], keep `[rows]` (u32) -> the rows that are kept, [rows, C].
#[track_caller]
pub fn select_rows(device: &Device, x: &Array, keep: &Array, rows: usize, c: usize) -> Array {
    embedding(device, x, keep, rows, c)
}

/// x [rows, C], weight `[C]` -> x / √(mean x² + ε) · weight, [rows, C], as [`crate::kernels::norm`] does it.
#[track_caller]
pub fn rms_norm(
    device: &Device,
    x: &Array,
    weight: &Array,
    rows: usize,
    c: usize,
    eps: f32,
) -> Array {
    check("x", x, rows * c);
    check("weight", weight, c);
    let y = device.empty(rows * c);
    let args = [x.into(), weight.into(), (&y).into(), word(c), eps.into()];
    device.launch("rms_norm", [rows, 1, 1], THREADS, &args);
    y
}

/// qkv [rows, (H + 2 G) D], weights `[D]` -> [rows, (H + 2 G) D]: each query and key head divided by its root mean square
/// and times its weight; values are copied.
#[track_caller]
pub fn qk_norm(
    device: &Device,
    qkv: &Array,
    q_gain: &Array,
    k_gain: &Array,
    heads: AttentionHeads,
    rows: usize,
    eps: f32,
) -> Array {
    let n = rows * heads.width();
    check("qkv", qkv, n);
    check("weight of queries", q_gain, heads.size);
    check("weight of keys", k_gain, heads.size);
    let y = device.empty(n);
    let all = heads.query + 2 * heads.key_value;
    let args = [
        qkv.into(),
        q_gain.into(),
        k_gain.into(),
        (&y).into(),
        word(heads.query),
        word(heads.key_value),
        word(heads.size),
        eps.into(),
    ];
    let grid = [rows, all.div_ceil(THREADS / LANES), 1];
    device.launch("qk_norm", grid, THREADS, &args);
    y
}

/// A table of rotations on a device.
#[derive(Clone, Debug)]
pub struct Angles {
    cos: Array,
    sin: Array,
    half: usize,
    positions: usize,
}

/// The table on a device.
pub fn angles(device: &Device, table: &rope::RopeTable) -> Angles {
    Angles {
        cos: device.upload(table.cosines()),
        sin: device.upload(table.sines()),
        half: table.half(),
        positions: table.positions(),
    }
}

/// qkv [rows, (H + 2 G) D], positions `[rows]` (u32) -> the first H + G heads turned by the angle of the row's position,
/// values copied. Where the table has no such position, the heads are NaN.
#[track_caller]
pub fn rope(
    device: &Device,
    qkv: &Array,
    angles: &Angles,
    heads: AttentionHeads,
    positions: &Array,
    rows: usize,
) -> Array {
    let n = rows * heads.width();
    check("qkv", qkv, n);
    check("positions", positions, rows);
    assert_eq!(heads.size, 2 * angles.half, "a table for these heads");
    let y = device.empty(n);
    let all = heads.query + 2 * heads.key_value;
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
    device.launch("rope", by_row(rows, all * angles.half), THREADS, &args);
    y
}

/// gu [rows, 2 F] (gate, then up) -> silu(gate) · up, [rows, F].
#[track_caller]
pub fn swiglu(device: &Device, gu: &Array, rows: usize, f: usize) -> Array {
    check("gate and up", gu, rows * 2 * f);
    let y = device.empty(rows * f);
    let args = [gu.into(), (&y).into(), word(f)];
    device.launch("swiglu", by_row(rows, f), THREADS, &args);
    y
}

/// x · sigmoid(x), element by element.
pub fn silu(device: &Device, x: &Array) -> Array {
    let y = device.empty(x.len());
    let args = [x.into(), (&y).into(), Arg::U64(x.len() as u64)];
    device.launch("silu", [blocks(x.len()), 1, 1], THREADS, &args);
    y
}

/// x + z, element by element.
#[track_caller]
pub fn add(device: &Device, x: &Array, z: &Array) -> Array {
    assert_eq!(x.len(), z.len(), "arrays of one length");
    let y = device.empty(x.len());
    let n = Arg::U64(x.len() as u64);
    let args = [x.into(), z.into(), (&y).into(), n];
    device.launch("add", [blocks(x.len()), 1, 1], THREADS, &args);
    y
}

/// x [rows, C], bias `[C]` -> x + bias, [rows, C].
#[track_caller]
pub fn add_bias(device: &Device, x: &Array, bias: &Array, rows: usize, c: usize) -> Array {
    check("x", x, rows * c);
    check("bias", bias, c);
    let y = device.empty(rows * c);
    let args = [x.into(), bias.into(), (&y).into(), word(c)];
    device.launch("add_bias", by_row(rows, c), THREADS, &args);
    y
}

/// x [rows, A], z [rows, B] -> [rows, A + B], x first.
#[track_caller]
pub fn concat(device: &Device, x: &Array, z: &Array, rows: usize, a: usize, b: usize) -> Array {
    check("x", x, rows * a);
    check("z", z, rows * b);
    let y = device.empty(rows * (a + b));
    let args = [x.into(), z.into(), (&y).into(), word(a), word(b)];
    device.launch("concat", by_row(rows, a + b), THREADS, &args);
    y
}

/// logits [rows, V], targets `[rows]` (u32) -> [2, rows]: the losses, then 1 where the target has the largest logit (the
/// lowest id wins a tie), else 0, as [`crate::kernels::cross_entropy`] does it. Nothing is kept for a gradient.
#[track_caller]
pub fn cross_entropy(
    device: &Device,
    logits: &Array,
    targets: &Array,
    rows: usize,
    v: usize,
) -> Array {
    check("logits", logits, rows * v);
    check("targets", targets, rows);
    let y = device.empty(2 * rows);
    let args = [
        logits.into(),
        targets.into(),
        (&y).into(),
        word(rows),
        word(v),
    ];
    device.launch("cross_entropy", [rows, 1, 1], THREADS, &args);
    y
}
