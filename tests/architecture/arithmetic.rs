//! What would let a platform, a version or a thread count change a result.

use crate::source::{Finding, Tree, in_word, words};

/// Functions of f32 and f64 that the platform's libm computes. `sqrt`, `abs`, `floor`, `round` and the
/// like have one right answer and are free to use.
const LIBM: [&str; 26] = [
    "exp", "exp2", "exp_m1", "ln", "ln_1p", "log", "log2", "log10", "sin", "cos", "tan", "sin_cos",
    "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "powf",
    "powi", "cbrt", "hypot",
];

/// Of these, the methods that take an argument.
const WITH_ARGUMENT: [&str; 5] = ["log", "atan2", "powf", "powi", "hypot"];

pub fn check_libm(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust_in("src") {
        let code = file.shipped();
        for name in LIBM {
            for at in words(&code, name) {
                let before = code[..at].trim_end();
                let after = &code[at + name.len()..];
                // A method without arguments is told from one of ours (`op.exp(x)`) by its `()`.
                let call = if WITH_ARGUMENT.contains(&name) {
                    "("
                } else {
                    "()"
                };
                let method = before.ends_with('.') && after.starts_with(call);
                let path = ["f32::", "f64::"].iter().any(|float| {
                    before
                        .strip_suffix(float)
                        .is_some_and(|rest| !rest.bytes().next_back().is_some_and(in_word))
                });
                if method || path {
                    findings.push(file.finding(at, format!("`{name}` of the standard library")));
                }
            }
        }
    }
    findings
}

pub fn check_mul_add(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree
        .rust_in("src")
        .filter(|file| !file.is_rust_in("src/simd"))
    {
        let code = file.shipped();
        findings
            .extend(words(&code, "mul_add").map(|at| file.finding(at, "`mul_add` outside simd")));
    }
    findings
}

pub fn check_rayon(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| file.path != "src/kernels/par.rs" && !file.is_rust_in("src/kernels/par"))
        .flat_map(|file| {
            words(&file.code, "rayon").map(|at| file.finding(at, "`rayon` outside kernels/par"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(check: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        let found = check(&Tree::of(&[(path, text)]));
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn libm_is_caught() {
        for text in [
            "x.exp()",
            "x.ln()",
            "x.sin()",
            "x.cos()",
            "x.tanh()",
            "x.powf(y)",
            "x.powi(2)",
            "x.exp2()",
            "x.log2()",
            "x.log(b)",
            "x.sin_cos()",
            "x\n    .exp()",
            "f64::exp(x)",
            "xs.map(f32::tanh)",
            "<f64>::from(x).ln_1p()",
            "std::f64::powi(x, 2)",
            "#[cfg(test)]\nmod tests { }\nx.exp()",
        ] {
            assert_eq!(lines(check_libm, "src/train/a.rs", text).len(), 1, "{text}");
        }
        assert_eq!(lines(check_libm, "src/train/a.rs", "a\nb\nx.exp()"), [3]);
    }

    #[test]
    fn our_own_functions_and_tests_pass() {
        for text in [
            "exp(s, x)",
            "scalar::exp(x)",
            "op.exp(x)",
            "x.sqrt() + x.abs().floor()",
            "// x.exp()",
            "f(\"x.exp()\")",
            "x.expand()",
            "use std::f64::consts::LN_2;",
            "self.log_step()",
            "#[cfg(test)]\nmod tests { fn f() { x.exp() } }",
        ] {
            assert_eq!(lines(check_libm, "src/train/a.rs", text), [0; 0], "{text}");
        }
        for path in [
            "src/ops/testing.rs",
            "src/simd/scalar/tests.rs",
            "tests/a.rs",
            "benches/a.rs",
        ] {
            assert_eq!(lines(check_libm, path, "x.exp()"), [0; 0], "{path}");
        }
    }

    #[test]
    fn mul_add_is_caught() {
        let lines = |path, text| lines(check_mul_add, path, text);
        assert_eq!(lines("src/kernels/a.rs", "\nx.mul_add(y, z)"), [2]);
        assert_eq!(lines("src/kernels/a.rs", "f32::mul_add"), [1]);
        assert_eq!(lines("src/simd/a.rs", "x.mul_add(y, z)"), [0; 0]);
        assert_eq!(
            lines(
                "src/kernels/a.rs",
                "#[cfg(test)]\nmod t { x.mul_add(y, z) }"
            ),
            [0; 0]
        );
    }

    #[test]
    fn rayon_is_caught() {
        for path in [
            "src/kernels/gemm.rs",
            "src/kernels/parallel.rs",
            "tests/a.rs",
            "benches/b.rs",
        ] {
            assert_eq!(
                lines(check_rayon, path, "use rayon::prelude::*;"),
                [1],
                "{path}"
            );
        }
        for path in ["src/kernels/par.rs", "src/kernels/par/pool.rs"] {
            assert_eq!(
                lines(check_rayon, path, "use rayon::prelude::*;"),
                [0; 0],
                "{path}"
            );
        }
        assert_eq!(lines(check_rayon, "src/lib.rs", "// rayon\n"), [0; 0]);
    }
}
