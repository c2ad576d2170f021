//! The examples that take nothing and print a few lines.

use crate::stage::run;

#[test]
fn squares_prints_them_and_the_tasks_in_the_order_of_their_ends() {
    let found = run("squares", [""; 0]).expect(0);
    let text = found.text();
    assert!(
        text.contains("squares of 1 to 10: [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]\n"),
        "{text}"
    );
    let mut done: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("done:    3 to the power of "))
        .collect();
    // the order is the clock's: a loaded machine may swap neighbours, so only the set is held here
    done.sort_unstable();
    assert_eq!(done, ["2 is 9", "3 is 27", "4 is 81", "5 is 243"]);
}

#[test]
fn explicit_init_works_with_the_hook_too() {
    assert_eq!(
        run("explicit_init", [""; 0]).expect(0).text(),
        "lengths: [3, 5, 6]\n"
    );
}

#[test]
fn supervise_tries_again_what_died() {
    let found = run("supervise", [""; 0]).expect(0);
    let text = found.text();
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(
        (count("again: job"), count("at try 1"), count("at try 2")),
        (3, 7, 3),
        "{text}"
    );
    assert!(text.ends_with("10! is 3628800, at try 1\n"), "{text}");
}

/// The program itself compares with what one process computes; the mean here is from the same equation in another language.
#[test]
fn heat_spreads_as_in_one_process() {
    for (steps, mean) in [("0", "1.562500"), ("1", "1.940918"), ("300", "13.513331")] {
        let found = run("heat", [steps]).expect(0);
        let wanted =
            format!("{steps} steps by 4 workers: {mean} on average, the same as by one process\n");
        assert_eq!(found.text(), wanted);
    }
    run("heat", ["many"]).expect(2);
}
