//! The form in which an event travels: versioned JSON, see `docs/events.md`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::domain::time::Timestamp;
use crate::persistence::store::outbox::Envelope;

/// The version of the form itself; what is in `data` has its own.
pub const SCHEMA: u16 = 1;

#[derive(Serialize, Deserialize)]
struct Message<'a> {
    schema: u16,
    id: Uuid,
    #[serde(rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    version: u16,
    topic: std::borrow::Cow<'a, str>,
    entity: Uuid,
    event_seq: u64,
    time: Timestamp,
    traceparent: Option<std::borrow::Cow<'a, str>>,
    data: Value,
}

/// The event as it travels. A payload that is no JSON, which is a defect,
/// travels as a text, so that its consumer can tell what is wrong.
#[must_use]
pub fn to_json(event: &Envelope) -> String {
    let data = serde_json::from_str(&event.payload)
        .unwrap_or_else(|_| Value::String(event.payload.clone()));
    let message = Message {
        schema: SCHEMA,
        id: event.event_id,
        kind: event.kind.as_str().into(),
        version: event.version,
        topic: event.topic.as_str().into(),
        entity: event.entity,
        event_seq: event.event_seq,
        time: event.at,
        traceparent: event.trace.as_deref().map(Into::into),
        data,
    };
    // Strings, numbers and a JSON value always serialise.
    serde_json::to_string(&message).unwrap_or_default()
}

/// The event that travelled as `text`.
///
/// # Errors
/// Why it is none: the reason on its dead letter.
pub fn from_json(text: &str) -> Result<Envelope, String> {
    let message: Message<'_> =
        serde_json::from_str(text).map_err(|error| format!("the message is no event: {error}"))?;
    if message.schema != SCHEMA {
        return Err(format!("schema {} of messages is unknown", message.schema));
    }
    if message.event_seq == 0 {
        return Err("events are numbered from 1".to_owned());
    }
    Ok(Envelope {
        entity: message.entity,
        topic: message.topic.into_owned(),
        event_seq: message.event_seq,
        event_id: message.id,
        kind: message.kind.into_owned(),
        version: message.version,
        at: message.time,
        trace: message.traceparent.map(std::borrow::Cow::into_owned),
        payload: message.data.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Envelope {
        Envelope {
            entity: Uuid::from_u128(1),
            topic: "onsale.orders".to_owned(),
            event_seq: 7,
            event_id: Uuid::from_u128(2),
            kind: "order.confirmed".to_owned(),
            version: 1,
            at: Timestamp(1_800_000_000_123),
            trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            payload: r#"{"order_id":"x"}"#.to_owned(),
        }
    }

    #[test]
    fn an_event_reads_back_as_it_was_sent() {
        let sent = event();
        assert_eq!(from_json(&to_json(&sent)), Ok(sent));
    }

    #[test]
    fn the_form_is_the_documented_one() {
        insta::assert_snapshot!(to_json(&event()), @r#"{"schema":1,"id":"00000000-0000-0000-0000-000000000002","type":"order.confirmed","version":1,"topic":"onsale.orders","entity":"00000000-0000-0000-0000-000000000001","event_seq":7,"time":"2027-01-15T08:00:00.123Z","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","data":{"order_id":"x"}}"#);
    }

    #[test]
    fn what_is_no_event_of_this_schema_is_told_apart() {
        assert!(from_json("hello").unwrap_err().contains("no event"));
        let newer = to_json(&event()).replace(r#""schema":1"#, r#""schema":2"#);
        assert_eq!(
            from_json(&newer),
            Err("schema 2 of messages is unknown".to_owned())
        );
        let unnumbered = to_json(&event()).replace(r#""event_seq":7"#, r#""event_seq":0"#);
        assert!(from_json(&unnumbered).is_err());
    }

    #[test]
    fn members_of_a_later_version_are_ignored() {
        let later = to_json(&event()).replacen('{', r#"{"colour":"red","#, 1);
        assert_eq!(from_json(&later), Ok(event()));
    }
}
