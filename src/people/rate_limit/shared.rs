//! Buckets that all nodes share, in Redis and on its time.
//!
//! The scripts run in Redis as one step, so nodes can't overtake each other between reading and writing. They go by
//! Redis' clock: those of the nodes need not agree.

use std::time::Duration;

use redis::Pipeline;

use super::bucket::Charge;
use crate::edge::hub::SharedValues;

/// Keeps for each bucket the time at which it is full again, in microseconds, as `bucket.rs` does. Answers how long to
/// wait: 0 if the act is allowed. Times have more digits than Lua prints by itself.
///
/// For each bucket there are three arguments: how much it may lack, what the act takes, and the most that it lacks.
const TAKE: &str = "local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local lacks, wait = {}, 0
for i, key in ipairs(KEYS) do
  lacks[i] = math.max(tonumber(redis.call('GET', key) or 0) - now, 0)
  wait = math.max(wait, lacks[i] - tonumber(ARGV[3 * i - 2]))
end
if wait > 0 then return math.ceil(wait) end
for i, key in ipairs(KEYS) do
  local after = math.min(lacks[i] + tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]))
  redis.call('SET', key, string.format('%.0f', now + after), 'PX', math.ceil(after / 1000) + 1)
end
return 0";

/// Lets a bucket be full earlier, by so many microseconds.
const PUT_BACK: &str = "local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local after = tonumber(redis.call('GET', KEYS[1]) or 0) - tonumber(ARGV[1]) - now
if after > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f', now + after), 'PX', math.ceil(after / 1000) + 1)
else
  redis.call('DEL', KEYS[1])
end
return 0";

/// Takes out of all buckets or, if one of them has nothing left, out of none. The error is how long to wait. None if
/// Redis does not answer.
pub(super) async fn take(shared_values: &SharedValues, charges: &[Charge]) -> Option<Result<(), Duration>> {
    if !shared_values.is_there() {
        return None;
    }
    let mut commands = Pipeline::new();
    commands.cmd("EVAL").arg(TAKE).arg(charges.len());
    for charge in charges {
        commands.arg(key_of(shared_values, charge));
    }
    for charge in charges {
        for time in [charge.allowance(), charge.rate.price(charge.cost), charge.rate.ceiling()] {
            commands.arg(micros(time));
        }
    }
    let (wait,): (u64,) = shared_values.ask(&commands).await?;
    Some(if wait == 0 { Ok(()) } else { Err(Duration::from_micros(wait)) })
}

/// Puts back what was taken. Where Redis does not answer, it stays taken.
pub(super) async fn put_back(shared_values: &SharedValues, charge: &Charge) {
    if !shared_values.is_there() {
        return;
    }
    let price = micros(charge.rate.price(charge.cost));
    let mut commands = Pipeline::new();
    commands.cmd("EVAL").arg(PUT_BACK).arg(1).arg(key_of(shared_values, charge)).arg(price);
    let _answer: Option<(u64,)> = shared_values.ask(&commands).await;
}

fn key_of(shared_values: &SharedValues, charge: &Charge) -> String {
    shared_values.key(&format!("limit:{}", charge.name))
}

fn micros(time: Duration) -> String {
    time.as_micros().to_string()
}
