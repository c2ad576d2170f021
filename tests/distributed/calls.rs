//! The calls of a pool, one by one, as those of one machine.

use crate::redis::RedisServer;
use crate::{Agent, PATIENCE, pool_at};

fn square(x: u64) -> u64 {
    x * x
}

#[test]
fn a_map_comes_back_in_order() {
    let server = RedisServer::start();
    let _agent = Agent::start(&server.url(), 2);
    let pool = pool_at(&server.url()).build().unwrap();
    pool.wait_for_workers(2, PATIENCE).unwrap();
    assert_eq!(pool.apply(square, 12).unwrap(), 144);
    let squares: Vec<u64> = (0..1000).map(square).collect();
    assert_eq!(pool.map(square, 0..1000).unwrap(), squares);
}
