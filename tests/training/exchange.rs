//! The exchange: each stream gets what the other gave, and the operation is its own adjoint, which is why the backward
//! pass may use it as it is.

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::exchange::Exchange;
use alexnet_split::exchange::local;
use alexnet_split::net::swap::Pass;
use alexnet_split::net::swap::Swap;

use crate::support;

/// The values of the two streams after a swap; `gives` says which of them gives (the other then takes).
fn swap(values: [&[f32]; 2], gives: [bool; 2]) -> [Vec<f32>; 2] {
    let (first, second) = local::connect();
    let elems = values[0].len();
    let end = |mut exchange: local::LocalExchange, mine: &[f32], gives: bool, takes: bool| {
        let (backend, mine) = (CpuBackend::default(), mine.to_vec());
        let swap = Swap { layer: "fc6".into(), pass: Pass::Forward, step: Some(0), elems, bytes: 4 * elems };
        let mut theirs = vec![f32::NAN; elems];
        exchange.start_swap(&backend, &swap, gives.then_some(&mine), takes.then_some(&mut theirs)).unwrap();
        exchange.finish_swap(&backend, &swap, takes.then_some(&mut theirs)).unwrap();
        theirs
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| end(second, values[1], gives[1], gives[0]));
        [end(first, values[0], gives[0], gives[1]), other.join().unwrap()]
    })
}

fn dot(a: &[Vec<f32>; 2], b: &[Vec<f32>; 2]) -> f64 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn swap_is_its_own_adjoint() {
    // Small whole numbers, so that the sums are exact in any order.
    let whole = |seed: u64| support::normals(1000, 10., seed).iter().map(|v| v.round()).collect::<Vec<f32>>();
    let (a, b) = ([whole(1), whole(2)], [whole(3), whole(4)]);
    let swapped = |v: &[Vec<f32>; 2]| swap([&v[0], &v[1]], [true, true]);
    assert_eq!(swapped(&a), [a[1].clone(), a[0].clone()]);
    assert_eq!(dot(&swapped(&a), &b), dot(&a, &swapped(&b)));
    assert_ne!(dot(&a, &b), dot(&swapped(&a), &b));
}

#[test]
fn one_way_only_the_taker_gets_something() {
    let (a, b) = (support::normals(10, 1., 1), support::normals(10, 1., 2));
    let [first, second] = swap([&a, &b], [false, true]);
    assert_eq!(first, b);
    assert!(second.iter().all(|v| v.is_nan()));
}
