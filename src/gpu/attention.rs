//! Keys and values on a device, and causal attention over them (rule R5).

use super::device::{Arg, Array, Device};
use super::rows::{THREADS, word};
use crate::kernels::attention::AttentionHeads;

/// Spans that one launch takes.
const SPANS: usize = 4;
/// `QUERIES`, `ROWS` and `WIDTH` of `kernels/attention.cu`; a block's tile of keys has as many as it has threads.
const QUERIES: usize = 8;
const ROWS: usize = 4;
const WIDTH: usize = 64;
/// Scores of one launch, unless a few rows have more: 64 MiB.
const SCORES: usize = 1 << 24;
/// Positions that a cache has room for at first.
const ROOM: usize = 64;

/// Keys and values of one sequence in one layer, position after position.
#[derive(Clone, Debug)]
pub struct Cache {
    /// G D
    width: usize,
    len: usize,
    /// Keys and values, [room, G D] each; none before the first position.
    arrays: Option<(Array, Array)>,
}

impl Cache {
    /// Without positions.
    pub fn new(heads: AttentionHeads) -> Self {
        Self {
            width: heads.key_value * heads.size,
            len: 0,
            arrays: None,
        }
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no position.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets positions `len..`.
    ///
    /// # Panics
    /// Where there are fewer.
    #[track_caller]
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "truncate {} positions to {len}", self.len);
        self.len = len;
    }

    /// Appends the keys and values of rows `from..from + rows` of qkv [.., (H + 2 G) D].
    ///
    /// # Panics
    /// Where qkv has fewer rows, or the cache is for other heads.
    #[track_caller]
    pub fn append(
        &mut self,
        device: &Device,
        heads: AttentionHeads,
        qkv: &Array,
        from: usize,
        rows: usize,
    ) {
        assert!(
            (from + rows) * heads.width() <= qkv.len(),
            "rows {from}.. of qkv"
        );
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
        device.launch("cache_append", grid, THREADS, &args);
        self.len += rows;
    }

    /// Arrays with room for so many positions; the old ones, or longer ones with the same contents.
    fn reserve(&mut self, device: &Device, positions: usize) -> (Array, Array) {
        let words = positions * self.width;
        if let Some((keys, values)) = &self.arrays
            && words <= keys.len()
        {
            return (keys.clone(), values.clone());
        }
        let room = positions.next_power_of_two().max(ROOM) * self.width;
        let longer = |old: Option<&Array>| {
            let array = device.empty(room);
            if let Some(old) = old {
                device.copy(old, 0..self.len * self.width, &array, 0);
            }
            array
        };
        let old = self.arrays.as_ref();
        let arrays = (longer(old.map(|x| &x.0)), longer(old.map(|x| &x.1)));
        self.arrays = Some(arrays.clone());
        arrays
    }
}

/// Consecutive rows of one sequence whose keys and values are in its cache.
pub struct Span<'a> {
    /// Position of the first row.
    pub first: usize,
    /// Number of rows.
    pub len: usize,
    /// It has at least positions 0..first + len.
    pub cache: &'a Cache,
}

/// Some rows of a span.
#[derive(Clone, Copy)]
struct Piece<'a> {
    /// First row in qkv.
    from: usize,
    first: usize,
    len: usize,
    arrays: &'a (Array, Array),
}

impl Piece<'_> {
    /// Scores of a row and a head, a multiple of sixteen.
    fn stride(&self) -> usize {
        (self.first + self.len).next_multiple_of(16)
    }
}

/// Causal attention of the spans' rows, which follow one another in qkv [rows, (H + 2 G) D], to everything in their
/// caches up to themselves -> [rows, H D].
///
/// # Panics
/// Where the spans are not of `rows` rows, or a cache has fewer positions than its span needs.
#[track_caller]
pub fn attend(
    device: &Device,
    heads: AttentionHeads,
    spans: &[Span<'_>],
    qkv: &Array,
    rows: usize,
) -> Array {
    let all: usize = spans.iter().map(|span| span.len).sum();
    assert_eq!(all, rows, "spans cover the rows");
    assert!(rows * heads.width() <= qkv.len(), "{rows} rows of qkv");
    let out = device.empty(rows * heads.query * heads.size);
    let pieces = pieces(heads, spans);
    for pieces in pieces.chunk_by(|a, b| a.launch == b.launch) {
        let pieces: Vec<_> = pieces.iter().map(|x| x.piece).collect();
        launch(device, heads, &pieces, qkv, &out);
    }
    out
}

/// A piece and the launch that takes it.
struct Placed<'a> {
    piece: Piece<'a>,
    launch: usize,
}

/// The spans' rows, so divided that no launch has more than so many scores, and each has up to four pieces.
#[track_caller]
fn pieces<'a>(heads: AttentionHeads, spans: &[Span<'a>]) -> Vec<Placed<'a>> {
    let mut all: Vec<Placed<'a>> = Vec::new();
    let (mut from, mut launch, mut taken, mut rows, mut stride) = (0, 0, 0, 0, 0);
    for span in spans {
        let cache = span.cache;
        assert_eq!(cache.width, heads.key_value * heads.size, "a cache's heads");
        assert!(
            span.first + span.len <= cache.len,
            "a span of positions up to {} over a cache of {}",
            span.first + span.len,
            cache.len
        );
        let mut done = 0;
        while done < span.len {
            let arrays = cache.arrays.as_ref().expect("a cache with positions");
            // As if all rows had the scores of the last.
            let a_row = heads.query * (span.first + span.len).next_multiple_of(16);
            let most = (SCORES / a_row).max(ROWS) / ROWS * ROWS;
            let piece = Piece {
                from: from + done,
                first: span.first + done,
                len: most.min(span.len - done),
                arrays,
            };
            let widest = piece.stride().max(stride);
            let scores = (rows + piece.len) * heads.query * widest;
            if taken == SPANS || (taken > 0 && scores > SCORES) {
                (launch, taken, rows, stride) = (launch + 1, 0, 0, 0);
            }
            (taken, rows) = (taken + 1, rows + piece.len);
            stride = stride.max(piece.stride());
            done += piece.len;
            all.push(Placed { piece, launch });
        }
        from += span.len;
    }
    all
}

/// Attention of up to four pieces: scores, then the rest.
fn launch(device: &Device, heads: AttentionHeads, pieces: &[Piece<'_>], qkv: &Array, out: &Array) {
    let most = |f: fn(&Piece<'_>) -> usize| pieces.iter().map(f).max().unwrap_or(0);
    let (len, stride) = (most(|x| x.len), most(|x| x.stride()));
    let keys = most(|x| x.first + x.len);
    let rows: usize = pieces.iter().map(|x| x.len).sum();
    let scores = device.empty(rows * heads.query * stride);
    // A launch has four of everything; the first stands in where there are fewer pieces, and no block asks for it.
    let four = || (0..SPANS).map(|i| &pieces[if i < pieces.len() { i } else { 0 }]);
    let numbers: Vec<Arg<'_>> = four()
        .map(|x| word(x.from))
        .chain(four().map(|x| word(x.len)))
        .chain(four().map(|x| word(x.first)))
        .chain([word(pieces[0].from), word(stride)])
        .chain([heads.query, heads.key_value, heads.size].map(word))
        .collect();

    let mut args: Vec<Arg<'_>> = vec![qkv.into()];
    args.extend(four().map(|x| Arg::Array(&x.arrays.0)));
    args.push((&scores).into());
    args.extend(&numbers);
    args.push(heads.scale().into());
    let queries = (len * heads.group()).div_ceil(QUERIES);
    let grid = [
        queries * heads.key_value,
        keys.div_ceil(THREADS),
        pieces.len(),
    ];
    device.launch("attention_scores", grid, THREADS, &args);

    let mut args: Vec<Arg<'_>> = vec![(&scores).into()];
    args.extend(four().map(|x| Arg::Array(&x.arrays.1)));
    args.push(out.into());
    args.extend(&numbers);
    let grid = [
        len.div_ceil(ROWS),
        heads.query * heads.size.div_ceil(WIDTH),
        pieces.len(),
    ];
    device.launch("attention_values", grid, THREADS, &args);
}
