//! The `constellation` program: everything is in the library.

fn main() -> constellation::cli::Exit {
    constellation::cli::main()
}
