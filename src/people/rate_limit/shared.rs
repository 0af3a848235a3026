//! Buckets that all nodes share, in Redis and on its time.
//!
//! The script runs in Redis as one step, so nodes can't overtake each other between reading and writing. It goes by
//! Redis' clock: those of the nodes need not agree.

use std::time::Duration;

use redis::Pipeline;

use crate::edge::hub::SharedValues;

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

/// Counts an act in the bucket that all nodes call `name`, which holds `burst` acts, one of which is made good in
/// `interval`. The error is how long to wait. None if Redis does not answer.
pub(super) async fn check(
    shared_values: &SharedValues,
    name: &str,
    interval: Duration,
    burst: u32,
) -> Option<Result<(), Duration>> {
    if !shared_values.is_there() {
        return None;
    }
    let key = shared_values.key(&format!("limit:{name}"));
    let mut commands = Pipeline::new();
    commands.cmd("EVAL").arg(SCRIPT).arg(1).arg(key).arg(interval.as_micros().max(1).to_string()).arg(burst.max(1));
    let (wait,): (u64,) = shared_values.ask(&commands).await?;
    Some(if wait == 0 { Ok(()) } else { Err(Duration::from_micros(wait)) })
}
