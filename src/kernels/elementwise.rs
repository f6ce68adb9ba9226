//! Additions and copies, element by element.

use super::par;

/// y = a + b, element by element.
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    let [a_len, b_len, y_len] = [a.len(), b.len(), y.len()];
    assert!(
        a_len == y_len && b_len == y_len,
        "elementwise::add: [{a_len}] + [{b_len}] -> [{y_len}]"
    );
    let part = par::elements_per_task(y.len());
    let tasks = a.chunks(part).zip(b.chunks(part)).zip(y.chunks_mut(part));
    par::for_each(tasks.collect(), |((a, b), y)| {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    });
}

/// y = x
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn copy(x: &[f32], y: &mut [f32]) {
    let (x_len, y_len) = (x.len(), y.len());
    assert_eq!(x_len, y_len, "elementwise::copy: [{x_len}] -> [{y_len}]");
    let part = par::elements_per_task(y_len);
    let tasks = y.chunks_mut(part).zip(x.chunks(part)).collect();
    par::for_each(tasks, |(y, x): (&mut [f32], &[f32])| y.copy_from_slice(x));
}

/// x += d, element by element.
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn accumulate(x: &mut [f32], d: &[f32]) {
    let (x_len, d_len) = (x.len(), d.len());
    assert_eq!(
        x_len, d_len,
        "elementwise::accumulate: [{x_len}] += [{d_len}]"
    );
    let part = par::elements_per_task(x_len);
    let tasks = x.chunks_mut(part).zip(d.chunks(part)).collect();
    par::for_each(tasks, |(x, d): (&mut [f32], &[f32])| {
        for (x, d) in x.iter_mut().zip(d) {
            *x += d;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "elementwise::add: [3] + [2] -> [3]")]
    fn a_short_operand_panics() {
        add(&[1.0; 3], &[1.0; 2], &mut [0.0; 3]);
    }

    #[test]
    #[should_panic(expected = "elementwise::accumulate: [3] += [4]")]
    fn a_long_operand_panics() {
        accumulate(&mut [1.0; 3], &[1.0; 4]);
    }
}
