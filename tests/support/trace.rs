//! Reading what `--trace` writes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// From, to (both in microseconds), name.
pub type Span = (u64, u64, String);

/// The name and the spans of every track by its number; the spans of each nest.
pub fn tracks(path: &Path) -> BTreeMap<u64, (String, Vec<Span>)> {
    let events: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut tracks: BTreeMap<u64, (String, Vec<Span>)> = BTreeMap::new();
    for event in events.iter().filter(|event| event["tid"].is_u64()) {
        let track = tracks.entry(event["tid"].as_u64().unwrap()).or_default();
        if event["name"] == "thread_name" {
            track.0 = event["args"]["name"].as_str().unwrap().into();
        } else if event["ph"] == "X" {
            let [from, time] = ["ts", "dur"].map(|key| event[key].as_u64().unwrap());
            track.1.push((from, from + time, event["name"].as_str().unwrap().into()));
        }
    }
    for (name, spans) in tracks.values_mut() {
        // Longer ones first where they begin together.
        spans.sort_by_key(|(from, to, _)| (*from, std::cmp::Reverse(*to)));
        let mut open: Vec<u64> = Vec::new();
        for (from, to, what) in spans.iter() {
            open.retain(|end| end > from);
            assert!(open.iter().all(|end| to <= end), "{name}: {what} from {from} to {to} sticks out of {open:?}");
            open.push(*to);
        }
    }
    tracks
}
