//! The rows of River's tables come out, to the printed digits where the algorithm is the same.

#[path = "../examples/river_rows.rs"]
mod river_rows;

use river_rows::{Line, Wanted, folder, lines};

#[test]
fn rivers_rows_come_out_to_the_printed_digits() {
    let Some(lines) = lines(&folder()) else {
        println!("not checked: DUNLIN_DATA names no folder with River's data sets (river/)");
        return;
    };
    for Line { what, on, ours, wanted } in lines {
        match wanted {
            Wanted::Digits(river) => {
                assert_eq!(format!("{ours:.4}"), format!("{river:.4}"), "{what} on {on}");
            }
            Wanted::AtLeast(river) => assert!(ours >= river, "{what} on {on}: {ours}"),
            Wanted::Shown => assert!(ours.is_finite(), "{what} on {on}"),
        }
    }
}
