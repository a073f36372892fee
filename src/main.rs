//! The binary: everything it does is in [`commonhold::cli`].

fn main() -> std::process::ExitCode {
    commonhold::cli::main()
}
