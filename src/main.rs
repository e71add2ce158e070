//! The `constellation` program: everything is in the library.

fn main() -> constellation::cli::Exit {
    constellation::allocator::return_large_blocks();
    constellation::open_files::allow_many();
    constellation::cli::main()
}
