//! Operations on rows of matrices. Each launches one kernel and returns a new matrix.
//!
//! The operations are those of [`crate::kernels`], with their bits. All of them panic if the shapes do not fit.

use super::device::{Array, Device, Matrix, THREADS, args, elements, word};
use crate::kernels::attention::AttentionHeads;
use crate::kernels::rope::RopeTable;

/// Elements of a partial sum's lanes: `LANES` of `kernels/common.cu`.
const LANES: usize = 16;

/// Number of blocks that hold this many threads.
pub(super) fn blocks(threads: usize) -> usize {
    threads.div_ceil(THREADS)
}

/// A grid with a thread for each element of [rows, width].
pub(super) fn by_row(rows: usize, width: usize) -> [usize; 3] {
    [rows, blocks(width), 1]
}

#[track_caller]
fn check(name: &str, elements: usize, expected: usize) {
    assert_eq!(elements, expected, "{name}: number of elements");
}

/// embeddings [entries, C], ids `[rows]` (u32) -> [rows, C]. A row is NaN if its id is not below `entries`.
#[track_caller]
pub fn embedding(embeddings: &Matrix, ids: &Array) -> Matrix {
    let (device, rows, c) = (embeddings.device(), ids.len(), embeddings.cols);
    let args = args![embeddings, ids, embeddings.rows, c];
    // SAFETY: the kernel's parameters; it reads `rows` ids and entries below `entries`, and writes [rows, C].
    unsafe { device.compute("gather_rows", by_row(rows, c), [rows, c], &args) }
}

/// x [rows, C], weight `[C]` -> x / √(mean x² + ε) · weight, [rows, C], as [`crate::kernels::norm`] computes it.
#[track_caller]
pub fn rms_norm(x: &Matrix, weight: &Matrix, eps: f32) -> Matrix {
    check("weight", weight.len(), x.cols);
    let args = args![x, weight, x.cols, eps];
    // SAFETY: the kernel's parameters; a block for each row of x and y, and a weight with C elements.
    unsafe { (x.device()).compute("rms_norm", [x.rows, 1, 1], x.shape(), &args) }
}

/// qkv [rows, (H + 2 G) D], weights `[D]` -> [rows, (H + 2 G) D]: RMSNorm of each query and key head; values are
/// copied.
#[track_caller]
pub fn qk_norm(
    qkv: &Matrix,
    q_weight: &Matrix,
    k_weight: &Matrix,
    heads: AttentionHeads,
    eps: f32,
) -> Matrix {
    let all = heads_per_row(heads, qkv);
    let (num_heads, num_kv_heads, head_dim) = (heads.num_heads, heads.num_kv_heads, heads.head_dim);
    check("weight of queries", q_weight.len(), head_dim);
    check("weight of keys", k_weight.len(), head_dim);
    let args = args![
        qkv,
        q_weight,
        k_weight,
        num_heads,
        num_kv_heads,
        head_dim,
        eps
    ];
    let grid = [qkv.rows, all.div_ceil(THREADS / LANES), 1];
    // SAFETY: the kernel's parameters; qkv and y have rows of these heads, and the weights a head's elements.
    unsafe { (qkv.device()).compute("qk_norm", grid, qkv.shape(), &args) }
}

/// Heads in a row of qkv, whose index calculations fit the kernels' 32 bits.
#[track_caller]
pub(super) fn heads_per_row(heads: AttentionHeads, qkv: &Matrix) -> usize {
    let (num_heads, num_kv_heads) = (heads.num_heads, heads.num_kv_heads);
    assert!(
        num_kv_heads > 0 && num_heads.is_multiple_of(num_kv_heads),
        "{num_heads} query heads share {num_kv_heads} key heads"
    );
    let all = num_heads.saturating_add(num_kv_heads.saturating_mul(2));
    assert_eq!(
        elements(&[all, heads.head_dim]),
        qkv.cols,
        "{heads:?} in a row"
    );
    word(qkv.cols);
    all
}

/// A [`RopeTable`] on a device: matrices [positions, D / 2].
#[derive(Clone, Debug)]
pub struct Angles {
    cos: Matrix,
    sin: Matrix,
}

impl Angles {
    /// Uploads the table.
    pub fn new(device: &Device, table: &RopeTable) -> Self {
        let [cos, sin] = [table.cosines(), table.sines()]
            .map(|x| Matrix::new(&device.upload(x), 0, table.positions(), table.half()));
        Self { cos, sin }
    }
}

/// qkv [rows, (H + 2 G) D], positions `[rows]` (u32) -> the first H + G heads rotated by the angles of the row's
/// position, values copied. Rotated heads are NaN if the table does not reach the position.
#[track_caller]
pub fn rope(qkv: &Matrix, angles: &Angles, heads: AttentionHeads, positions: &Array) -> Matrix {
    let all = heads_per_row(heads, qkv);
    check("positions", positions.len(), qkv.rows);
    let Angles { cos, sin } = angles;
    let half = cos.cols;
    assert_eq!(heads.head_dim, 2 * half, "head_dim and RoPE table");
    let rotated = heads.num_heads + heads.num_kv_heads;
    let args = args![qkv, cos, sin, positions, cos.rows, half, rotated, all];
    let grid = by_row(qkv.rows, all * half);
    // SAFETY: the kernel's parameters; qkv and y have rows of these heads, each row has a position, and the table has
    // its number of positions.
    unsafe { (qkv.device()).compute("rope", grid, qkv.shape(), &args) }
}

/// gu [rows, 2 F] (gate, then up) -> silu(gate) · up, [rows, F].
#[track_caller]
pub fn swiglu(gu: &Matrix) -> Matrix {
    let (rows, f) = (gu.rows, gu.cols / 2);
    // SAFETY: the kernel's parameters; gu is [rows, 2 F], y is [rows, F].
    unsafe { (gu.device()).compute("swiglu", by_row(rows, f), [rows, f], &args![gu, f]) }
}

/// x · sigmoid(x), element by element.
#[track_caller]
pub fn silu(x: &Matrix) -> Matrix {
    let args = args![x, x.cols];
    // SAFETY: the kernel's parameters; x and y have the same shape.
    unsafe { (x.device()).compute("silu", by_row(x.rows, x.cols), x.shape(), &args) }
}

/// x + z, element by element.
#[track_caller]
pub fn add(x: &Matrix, z: &Matrix) -> Matrix {
    assert_eq!(x.shape(), z.shape(), "add: shapes");
    let args = args![x, z, x.cols];
    // SAFETY: the kernel's parameters; all three have the same shape.
    unsafe { (x.device()).compute("add", by_row(x.rows, x.cols), x.shape(), &args) }
}

/// x [rows, C], bias `[C]` -> x + bias, [rows, C].
#[track_caller]
pub fn add_bias(x: &Matrix, bias: &Matrix) -> Matrix {
    check("bias", bias.len(), x.cols);
    let args = args![x, bias, x.cols];
    // SAFETY: the kernel's parameters; x and y are [rows, C], the bias has C elements.
    unsafe { (x.device()).compute("add_bias", by_row(x.rows, x.cols), x.shape(), &args) }
}

/// x [rows, A], z [rows, B] -> [rows, A + B], x first.
#[track_caller]
pub fn concat(x: &Matrix, z: &Matrix) -> Matrix {
    let rows = x.rows;
    assert_eq!(z.rows, rows, "concat: rows");
    let width = x.cols.checked_add(z.cols).expect("concat: a width");
    // The kernel adds the widths in 32 bits.
    word(width);
    let args = args![x, z, x.cols, z.cols];
    // SAFETY: the kernel's parameters; x is [rows, A], z is [rows, B], y is [rows, A + B].
    unsafe { (x.device()).compute("concat", by_row(rows, width), [rows, width], &args) }
}

/// logits [rows, V], targets `[rows]` (u32) -> [2, rows]: the losses, then 1 if the target has the largest logit (the
/// lowest id wins a tie), else 0, as [`crate::kernels::cross_entropy`] computes them.
#[track_caller]
pub fn cross_entropy(logits: &Matrix, targets: &Array) -> Matrix {
    let rows = logits.rows;
    check("targets", targets.len(), rows);
    let args = args![logits, targets, rows, logits.cols];
    // SAFETY: the kernel's parameters; a block for each row of the logits, `rows` targets, and two results per row.
    unsafe { (logits.device()).compute("cross_entropy", [rows, 1, 1], [2, rows], &args) }
}
