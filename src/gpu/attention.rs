//! KV caches on a device, and causal attention over them (rule R5).

use super::device::{Arg, Array, Device, elements};
use super::rows::{THREADS, sizes, word};
use crate::kernels::attention::AttentionHeads;

/// Chunks of one launch.
const MAX_CHUNKS: usize = 4;
/// `QUERIES`, `ROWS` and `WIDTH` of `kernels/attention.cu`. A block's tile of keys has one key per thread.
const QUERIES: usize = 8;
const ROWS: usize = 4;
const WIDTH: usize = 64;
/// The most scores of one launch, 64 MiB, unless so few rows have more.
const MAX_SCORES: usize = 1 << 24;
/// The smallest capacity of a cache, in positions.
const MIN_CAPACITY: usize = 64;

/// The KV cache of one sequence and one layer, one row per position.
#[derive(Clone, Debug)]
pub struct Cache {
    /// G D
    width: usize,
    len: usize,
    /// Keys and values, [capacity, G D] each; none before the first position.
    arrays: Option<(Array, Array)>,
}

impl Cache {
    /// An empty cache.
    pub fn new(heads: AttentionHeads) -> Self {
        Self {
            width: elements(&[heads.key_value, heads.size]),
            len: 0,
            arrays: None,
        }
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Removes positions `len..`.
    ///
    /// # Panics
    /// Panics if there are fewer positions.
    #[track_caller]
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "truncate {} positions to {len}", self.len);
        self.len = len;
    }

    /// Appends the keys and values of rows `from..from + rows` of qkv [.., (H + 2 G) D].
    ///
    /// # Panics
    /// Panics if qkv has fewer rows, or if the cache is for other heads.
    #[track_caller]
    pub fn append(
        &mut self,
        device: &Device,
        heads: AttentionHeads,
        qkv: &Array,
        from: usize,
        rows: usize,
    ) {
        let end = from.checked_add(rows).expect("append: a row");
        let [_, n] = sizes(heads, end);
        assert!(n <= qkv.len(), "rows {from}..{end} of qkv");
        assert_eq!(self.width, heads.key_value * heads.size, "a cache's heads");
        let (keys, values) = self.reserve(device, self.len + rows);
        let args = [
            qkv.into(),
            (&keys).into(),
            (&values).into(),
            word(from),
            word(self.len),
            word(heads.query * heads.size),
            word(self.width),
        ];
        let grid = [rows, self.width.div_ceil(THREADS), 1];
        // SAFETY: the kernel's parameters; qkv has the rows, and the cache has room for them.
        unsafe { device.launch("cache_append", grid, THREADS, &args) };
        self.len += rows;
    }

    /// Arrays with room for this many positions: the old ones, or larger ones with the same contents.
    fn reserve(&mut self, device: &Device, positions: usize) -> (Array, Array) {
        let words = elements(&[positions, self.width]);
        if let Some((keys, values)) = &self.arrays
            && words <= keys.len()
        {
            return (keys.clone(), values.clone());
        }
        let capacity = positions.next_power_of_two().max(MIN_CAPACITY);
        let grow = |old: Option<&Array>| {
            let array = device.empty(elements(&[capacity, self.width]));
            if let Some(old) = old {
                device.copy(old, 0..self.len * self.width, &array, 0);
            }
            array
        };
        let old = self.arrays.as_ref();
        let arrays = (grow(old.map(|x| &x.0)), grow(old.map(|x| &x.1)));
        self.arrays = Some(arrays.clone());
        arrays
    }
}

/// Consecutive rows of one sequence, whose keys and values are in its cache.
pub struct Queries<'a> {
    /// Position of the first row.
    pub first: usize,
    /// Number of rows.
    pub len: usize,
    /// Holds positions 0..first + len, and may hold more.
    pub cache: &'a Cache,
}

/// Consecutive rows of one sequence in one launch.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    /// First row in qkv.
    from: usize,
    first: usize,
    len: usize,
    arrays: &'a (Array, Array),
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
/// their own -> [rows, H D].
///
/// # Panics
/// Panics if `queries` do not have `rows` rows, or if a cache has too few positions.
#[track_caller]
pub fn attend(
    device: &Device,
    heads: AttentionHeads,
    queries: &[Queries<'_>],
    qkv: &Array,
    rows: usize,
) -> Array {
    let all: usize = queries.iter().map(|queries| queries.len).sum();
    assert_eq!(all, rows, "attend: rows");
    let [_, n] = sizes(heads, rows);
    assert!(n <= qkv.len(), "{rows} rows of qkv");
    let out = device.empty(rows * heads.query * heads.size);
    for chunks in launches(heads, queries) {
        launch(device, heads, &chunks, qkv, &out);
    }
    out
}

/// The rows in chunks, grouped into launches of at most `MAX_CHUNKS` chunks and about `MAX_SCORES` scores.
#[track_caller]
fn launches<'a>(heads: AttentionHeads, queries: &[Queries<'a>]) -> Vec<Vec<Chunk<'a>>> {
    let mut launches: Vec<Vec<Chunk<'a>>> = vec![Vec::new()];
    let mut from = 0;
    for &Queries { first, len, cache } in queries {
        assert_eq!(cache.width, heads.key_value * heads.size, "a cache's heads");
        let end = first.checked_add(len).expect("attend: a position");
        assert!(
            end <= cache.len,
            "rows at positions up to {end} over a cache of {}",
            cache.len
        );
        // As if all rows had the scores of the last.
        let scores_per_row = heads.query * stride(end);
        let most = (MAX_SCORES / scores_per_row.max(1)).max(ROWS) / ROWS * ROWS;
        for start in (0..len).step_by(most) {
            let chunk = Chunk {
                from: from + start,
                first: first + start,
                len: most.min(len - start),
                arrays: cache.arrays.as_ref().expect("a cache with positions"),
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
    elements(&[rows, heads.query, stride(keys)])
}

/// Attention of one launch's chunks: scores, then weighted sums of values.
fn launch(device: &Device, heads: AttentionHeads, chunks: &[Chunk<'_>], qkv: &Array, out: &Array) {
    let most = |f: fn(&Chunk<'_>) -> usize| chunks.iter().map(f).max().unwrap_or(0);
    let (len, keys) = (most(|x| x.len), most(|x| x.keys()));
    let scores = device.empty(scores(heads, chunks));
    // Unused parameters repeat the first chunk; no block reads them.
    let four = || (0..MAX_CHUNKS).map(|i| chunks.get(i).unwrap_or(&chunks[0]));
    let numbers: Vec<Arg<'_>> = four()
        .map(|x| word(x.from))
        .chain(four().map(|x| word(x.len)))
        .chain(four().map(|x| word(x.first)))
        .chain([word(chunks[0].from), word(stride(keys))])
        .chain([heads.query, heads.key_value, heads.size].map(word))
        .collect();
    // The kernels compute these in 32 bits.
    word(keys);
    word(elements(&[len, heads.group()]));

    let mut args: Vec<Arg<'_>> = vec![qkv.into()];
    args.extend(four().map(|x| Arg::from(&x.arrays.0)));
    args.push((&scores).into());
    args.extend(&numbers);
    args.push(heads.scale().into());
    let queries = (len * heads.group()).div_ceil(QUERIES);
    let grid = [
        queries * heads.key_value,
        keys.div_ceil(THREADS),
        chunks.len(),
    ];
    // SAFETY: the kernel's parameters; `attend` checked qkv and the caches, and the scores have room for all rows.
    unsafe { device.launch("attention_scores", grid, THREADS, &args) };

    let mut args: Vec<Arg<'_>> = vec![(&scores).into()];
    args.extend(four().map(|x| Arg::from(&x.arrays.1)));
    args.push(out.into());
    args.extend(&numbers);
    let grid = [
        len.div_ceil(ROWS),
        heads.query * heads.size.div_ceil(WIDTH),
        chunks.len(),
    ];
    // SAFETY: as above; `out` has H D elements for each row of qkv.
    unsafe { device.launch("attention_values", grid, THREADS, &args) };
}
