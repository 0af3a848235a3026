//! Buckets that all nodes share, in Redis and on its time.

use std::time::Duration;

use redis::Pipeline;

use super::{Limit, Rate};
use crate::hub::Board;

/// Keeps for each bucket the time at which it is full again (the generic cell rate algorithm), in microseconds.
/// Answers how long to wait: 0 if the act is allowed. Times have more digits than Lua prints by itself.
const SCRIPT: &str = "local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local wait = full - now - interval * (burst - 1)
if wait > 0 then return math.ceil(wait) end
full = full + interval
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
return 0";

/// Counts an act in the bucket of all nodes. The error is how long to wait. None if Redis does not tell.
pub(super) async fn check(board: &Board, limit: Limit, who: &str, rate: Rate) -> Option<Result<(), Duration>> {
    if !board.is_there() {
        return None;
    }
    let key = board.key(&format!("limit:{limit:?}:{who}"));
    let mut commands = Pipeline::new();
    commands
        .cmd("EVAL")
        .arg(SCRIPT)
        .arg(1)
        .arg(key)
        .arg(rate.interval().as_micros().max(1).to_string())
        .arg(rate.burst.max(1));
    let (wait,): (u64,) = board.ask(&commands).await?;
    Some(if wait == 0 { Ok(()) } else { Err(Duration::from_micros(wait)) })
}
