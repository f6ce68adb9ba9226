//! The kernels' source, one translation unit.

/// The files, in order.
const FILES: &[&str] = &[
    include_str!("kernels/common.cu"),
    include_str!("kernels/matmul.cu"),
    include_str!("kernels/rows.cu"),
    include_str!("kernels/attention.cu"),
    include_str!("kernels/sample.cu"),
    #[cfg(test)]
    include_str!("tests/elementary.cu"),
];

/// All kernels after `prelude`, which adapts them to a compiler.
pub(super) fn kernels(prelude: &str) -> String {
    [&[prelude], FILES].concat().join("\n")
}
