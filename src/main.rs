//! The command line program.

fn main() -> std::process::ExitCode {
    foretoken::cli::main()
}
