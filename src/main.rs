//! The command line program; see `foretoken::cli`.

fn main() -> std::process::ExitCode {
    foretoken::cli::main()
}
