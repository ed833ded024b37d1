//! Prints the targets, and what each checks.
#![expect(clippy::print_stdout, reason = "an example speaks on standard output")]

fn main() {
    for target in fuzz::TARGETS {
        println!("{:<15} {}", target.name, target.what);
    }
}
