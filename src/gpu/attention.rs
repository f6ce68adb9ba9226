//! KV caches on a device, and causal attention over them (rule R5).

use super::device::{Arg, Array, Matrix, THREADS, args, elements, word};
use super::growing::Growing;
use super::rows::{blocks, by_row, heads_per_row};
use crate::exec::Span;
use crate::kernels::attention::AttentionHeads;

/// Chunks of one launch.
const MAX_CHUNKS: usize = 4;
/// `QUERIES`, `ROWS` and `WIDTH` of `kernels/attention.cu`. A block's tile of keys has one key per thread.
const QUERIES: usize = 8;
const ROWS: usize = 4;
const WIDTH: usize = 64;
/// The maximum number of scores of one launch, 64 MiB, unless so few rows have more.
const MAX_SCORES: usize = 1 << 24;

/// The KV cache of one sequence and one layer: keys and values, [positions, G D] each.
pub type Cache = Growing<2>;

impl Cache {
    /// Appends the keys and values of rows `from..from + rows` of qkv [.., (H + 2 G) D].
    ///
    /// # Panics
    /// Panics if qkv has fewer rows, or if the cache is for other heads.
    #[track_caller]
    pub fn append(&mut self, heads: AttentionHeads, qkv: &Matrix, from: usize, rows: usize) {
        heads_per_row(heads, qkv);
        let end = from.checked_add(rows).expect("append: a row");
        assert!(end <= qkv.rows, "rows {from}..{end} of qkv");
        let width = self.width;
        assert_eq!(
            width,
            heads.num_kv_heads * heads.head_dim,
            "a cache's heads"
        );
        let first = self.len;
        let [keys, values] = self.extend(qkv.device(), rows);
        let query_width = heads.num_heads * heads.head_dim;
        let args = args![qkv, &keys, &values, from, first, query_width, width];
        // SAFETY: the kernel's parameters; qkv has the rows, and the cache has room for them.
        unsafe { (qkv.device()).launch("cache_append", by_row(rows, width), THREADS, &args) };
    }
}

/// Consecutive rows of one sequence in one launch.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    /// First row in qkv.
    from: usize,
    first: usize,
    len: usize,
    /// Keys and values.
    arrays: &'a [Array; 2],
}

impl Chunk<'_> {
    /// Number of keys that the last row attends to.
    fn keys(&self) -> usize {
        self.first + self.len
    }
}

/// Scores of one row and head in memory, when its launch has at most this many keys.
fn stride(keys: usize) -> usize {
    keys.next_multiple_of(16)
}

/// Causal attention of rows of qkv [rows, (H + 2 G) D], grouped by sequence, to the positions of their caches up to
/// their own -> [rows, H D]. Each span of rows comes with its sequence's cache, which may hold later positions too.
///
/// # Panics
/// Panics if the spans have another number of rows, or if a cache has too few positions.
#[track_caller]
pub fn attend(heads: AttentionHeads, spans: &[(Span, &Cache)], qkv: &Matrix) -> Matrix {
    heads_per_row(heads, qkv);
    let rows: usize = spans.iter().map(|(span, _)| span.len).sum();
    assert_eq!(rows, qkv.rows, "attend: rows");
    let out = qkv.device().matrix(rows, heads.num_heads * heads.head_dim);
    for chunks in launches(heads, spans) {
        launch(heads, &chunks, qkv, &out);
    }
    out
}

/// The rows in chunks, grouped into launches of at most `MAX_CHUNKS` chunks and about `MAX_SCORES` scores.
#[track_caller]
fn launches<'a>(heads: AttentionHeads, spans: &[(Span, &'a Cache)]) -> Vec<Vec<Chunk<'a>>> {
    let mut launches: Vec<Vec<Chunk<'a>>> = vec![Vec::new()];
    let mut from = 0;
    for &(Span { first, len, .. }, cache) in spans {
        assert_eq!(
            cache.width,
            heads.num_kv_heads * heads.head_dim,
            "a cache's heads"
        );
        let end = first.checked_add(len).expect("attend: a position");
        assert!(
            end <= cache.len,
            "rows at positions up to {end} over a cache of {}",
            cache.len
        );
        // As if all rows had the scores of the last.
        let scores_per_row = heads.num_heads * stride(end);
        let max_rows = (MAX_SCORES / scores_per_row.max(1)).max(ROWS) / ROWS * ROWS;
        for start in (0..len).step_by(max_rows) {
            let chunk = Chunk {
                from: from + start,
                first: first + start,
                len: max_rows.min(len - start),
                arrays: cache.arrays(),
            };
            let last = launches.last_mut().expect("one launch at least");
            last.push(chunk);
            if last.len() > MAX_CHUNKS || (last.len() > 1 && scores(heads, last) > MAX_SCORES) {
                last.pop();
                launches.push(vec![chunk]);
            }
        }
        from += len;
    }
    launches.retain(|chunks| !chunks.is_empty());
    launches
}

/// Scores of a launch.
fn scores(heads: AttentionHeads, chunks: &[Chunk<'_>]) -> usize {
    let rows = chunks.iter().map(|x| x.len).sum();
    let keys = chunks.iter().map(Chunk::keys).max().unwrap_or(0);
    elements(&[rows, heads.num_heads, stride(keys)])
}

/// Attention of one launch's chunks: scores, then weighted sums of values.
fn launch(heads: AttentionHeads, chunks: &[Chunk<'_>], qkv: &Matrix, out: &Matrix) {
    let device = qkv.device();
    let max_of = |f: fn(&Chunk<'_>) -> usize| chunks.iter().map(f).max().unwrap_or(0);
    let (len, keys) = (max_of(|x| x.len), max_of(|x| x.keys()));
    let scores = device.empty(scores(heads, chunks));
    // Unused parameters repeat the first chunk; no block reads them.
    let four = || (0..MAX_CHUNKS).map(|i| chunks.get(i).unwrap_or(&chunks[0]));
    let of_chunks: [fn(&Chunk<'_>) -> usize; 3] = [|x| x.from, |x| x.len, |x| x.first];
    let of_chunks = of_chunks.into_iter().flat_map(|f| four().map(f));
    let (num_heads, num_kv_heads, head_dim) = (heads.num_heads, heads.num_kv_heads, heads.head_dim);
    let others = [
        chunks[0].from,
        stride(keys),
        num_heads,
        num_kv_heads,
        head_dim,
    ];
    let numbers: Vec<Arg<'_>> = of_chunks.chain(others).map(Arg::from).collect();
    // The kernels compute these in 32 bits.
    word(keys);
    word(elements(&[len, heads.group()]));

    let args = |input, array: usize, output| {
        let arrays = four().map(|x| Arg::from(&x.arrays[array]));
        let arrays = [input].into_iter().chain(arrays).chain([output]);
        arrays.chain(numbers.iter().copied()).collect::<Vec<_>>()
    };
    let mut score_args = args(qkv.into(), 0, (&scores).into());
    score_args.push(heads.scale().into());
    let queries = (len * heads.group()).div_ceil(QUERIES);
    let grid = [queries * num_kv_heads, blocks(keys), chunks.len()];
    // SAFETY: the kernel's parameters; `attend` checked qkv and the caches, and the scores have room for all rows.
    unsafe { device.launch("attention_scores", grid, THREADS, &score_args) };

    let value_args = args((&scores).into(), 1, out.into());
    let columns = num_heads * head_dim.div_ceil(WIDTH);
    let grid = [len.div_ceil(ROWS), columns, chunks.len()];
    // SAFETY: as above; `out` has H D elements for each row of qkv.
    unsafe { device.launch("attention_values", grid, THREADS, &value_args) };
}
