//! Parse, dispatch, exit code.

fn main() -> std::process::ExitCode {
    flowpin::cli::main()
}
