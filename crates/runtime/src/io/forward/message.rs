//! Lines as their receivers want them.

use portlayer::element::ElementId;
use portlayer::time::Timestamp;

use super::super::Stream;
use super::lines::Line;

/// Priorities of syslog and of journald.
const ERROR: u8 = 3;
const INFO: u8 = 6;

/// Whose lines they are.
#[derive(Debug, Clone)]
pub(super) struct Whose {
    pub(super) executor: ElementId,
    pub(super) task: ElementId,
    pub(super) host: String,
}

fn severity(stream: Stream) -> u8 {
    match stream {
        Stream::Out => INFO,
        Stream::Err => ERROR,
    }
}

fn stream(of: Stream) -> &'static str {
    match of {
        Stream::Out => "stdout",
        Stream::Err => "stderr",
    }
}

/// A line's name: the same for the same line, in order for those of a stream.
fn sequence(line: &Line) -> String {
    format!("{}.{}", line.from.sequence, line.from.skip)
}

/// RFC 5424. The text is passed on as the task wrote it. Nanoseconds are in the structured data: its time has micro.
pub(super) fn syslog(whose: &Whose, facility: u8, app: &str, line: &Line) -> Vec<u8> {
    let time = Timestamp::from_nanos(line.time_ns).to_string();
    // Nine digits and a Z.
    let micro = time.get(..time.len().saturating_sub(4)).unwrap_or("-");
    let mut message = format!(
        "<{priority}>1 {micro}Z {host} {app} - {stream} \
         [portlayer@32473 executor=\"{executor}\" task=\"{task}\" sequence=\"{sequence}\" ns=\"{ns}\"{cut}] ",
        priority = facility * 8 + severity(line.stream),
        host = whose.host,
        stream = stream(line.stream),
        executor = whose.executor,
        task = whose.task,
        sequence = sequence(line),
        ns = line.time_ns,
        cut = if line.cut { " cut=\"true\"" } else { "" },
    )
    .into_bytes();
    message.extend_from_slice(&line.bytes);
    message
}

/// Counted octets, so that a message may hold a newline (RFC 6587, 3.4.1).
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [format!("{} ", message.len()).as_bytes(), message].concat()
}

/// The native protocol of journald: fields in one datagram.
pub(super) fn journald(whose: &Whose, identifier: &str, line: &Line) -> Vec<u8> {
    let fields = [
        ("PRIORITY", severity(line.stream).to_string()),
        ("SYSLOG_IDENTIFIER", identifier.to_owned()),
        ("PORTLAYER_EXECUTOR", whose.executor.to_string()),
        ("PORTLAYER_TASK", whose.task.to_string()),
        ("PORTLAYER_STREAM", stream(line.stream).to_owned()),
        ("PORTLAYER_SEQUENCE", sequence(line)),
        ("PORTLAYER_TIME_NS", line.time_ns.to_string()),
    ];
    let mut message = Vec::with_capacity(line.bytes.len() + 300);
    for (name, value) in fields {
        message.extend_from_slice(format!("{name}={value}\n").as_bytes());
    }
    if line.cut {
        message.extend_from_slice(b"PORTLAYER_CUT=true\n");
    }
    // With its length, because the text may hold anything.
    message.extend_from_slice(b"MESSAGE\n");
    message.extend_from_slice(&(line.bytes.len() as u64).to_le_bytes());
    message.extend_from_slice(&line.bytes);
    message.push(b'\n');
    message
}

#[cfg(test)]
mod tests {
    use super::super::place::Next;
    use super::*;

    fn line() -> (Whose, Line) {
        let whose = Whose {
            executor: "executor://executors/x".parse().unwrap(),
            task: "task://tasks/t".parse().unwrap(),
            host: "node1".to_owned(),
        };
        let line = Line {
            stream: Stream::Err,
            time_ns: 1_700_000_000_123_456_789,
            from: Next {
                sequence: 7,
                skip: 2,
            },
            bytes: b"hello".to_vec(),
            cut: false,
        };
        (whose, line)
    }

    #[test]
    fn syslog_is_rfc_5424() {
        let (whose, line) = line();
        let text = String::from_utf8(syslog(&whose, 16, "app", &line)).unwrap();
        assert_eq!(
            text,
            "<131>1 2023-11-14T22:13:20.123456Z node1 app - stderr [portlayer@32473 executor=\"executor://executors/x\" \
             task=\"task://tasks/t\" sequence=\"7.2\" ns=\"1700000000123456789\"] hello"
        );
        assert_eq!(framed(b"a b"), b"3 a b");
    }

    #[test]
    fn journald_gets_the_text_with_its_length() {
        let (whose, line) = line();
        let message = journald(&whose, "app", &line);
        let end = [b"MESSAGE\n".as_slice(), &5u64.to_le_bytes(), b"hello\n"].concat();
        assert!(message.ends_with(&end));
        assert!(message.starts_with(b"PRIORITY=3\nSYSLOG_IDENTIFIER=app\n"));
    }
}
