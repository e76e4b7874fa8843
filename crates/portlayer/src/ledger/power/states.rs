//! Building the states and looking at them.

use std::path::Path;

use super::{Difference, Moment, PowerCut, PowerReport, Recorded, SECTOR, Step, copy, element, id};
use crate::ledger::{Ledger, LedgerConfig, LedgerError};

/// A small generator of numbers (xorshift): repeatable, and nothing here needs more.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (end.max(1) as u64)).unwrap_or(0)
    }
}

impl PowerCut {
    /// Builds and opens the states, spread evenly over the flushes.
    pub(super) fn try_states(&self, recorded: Recorded) -> Result<PowerReport, LedgerError> {
        let Recorded {
            base,
            mut durable,
            steps,
        } = recorded;
        let mut random = Random(self.seed | 1);
        let flushes = steps.iter().filter(|step| matches!(step, Step::Begins(_)));
        let mut report = PowerReport {
            flushes: flushes.count() as u64,
            ..PowerReport::default()
        };
        let wanted = u64::from(self.states);
        let mut begun = 0;
        for step in &steps {
            match step {
                Step::Durable(difference) => {
                    apply(&mut durable, difference.len, &difference.sectors);
                }
                Step::Begins(moment) => {
                    begun += 1;
                    while report.states < wanted * begun / report.flushes {
                        let state = state(&durable, &moment.on_its_way, &mut random);
                        self.try_state(&base, &state, moment, &mut report)?;
                    }
                }
            }
        }
        Ok(report)
    }

    fn try_state(
        &self,
        base: &Path,
        state: &[u8],
        moment: &Moment,
        report: &mut PowerReport,
    ) -> Result<(), LedgerError> {
        let directory = self.directory.join("state");
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        copy(base, &directory)?;
        std::fs::write(directory.join("db"), state)?;
        report.states += 1;
        let name = format!("state {}", report.states);
        match Ledger::open(&LedgerConfig::new(directory)) {
            Ok(ledger) => {
                for (writer, acknowledged) in (0..).zip(&moment.acknowledged) {
                    look(&ledger, writer, *acknowledged, &name, report)?;
                }
                let verified = ledger.verify()?;
                if !verified.is_clean() {
                    report.torn.push(format!("{name}: {verified:?}"));
                }
            }
            Err(error) => report.unopenable.push(format!("{name}: {error}")),
        }
        Ok(())
    }
}

/// Compares what a writer left with what it must have left.
fn look(
    ledger: &Ledger,
    writer: u32,
    acknowledged: u64,
    name: &str,
    report: &mut PowerReport,
) -> Result<(), LedgerError> {
    let reached = match ledger.get(&id(writer, 0)) {
        Ok(counter) => counter.map_or(0, |counter| counter.revision),
        Err(_) => 0,
    };
    if reached < acknowledged {
        let text = format!("{name}: writer {writer} reached {reached} of {acknowledged}");
        report.lost.push(text);
        return Ok(());
    }
    let logged = ledger.audit_log(&id(writer, 0));
    if logged
        .ok()
        .and_then(|rows| rows.last().map(|row| row.sequence))
        .unwrap_or(0)
        != reached
    {
        report
            .torn
            .push(format!("{name}: audit rows of writer {writer}"));
    }
    // One more than it reached, which must not be there at all.
    for write in 1..=reached + 1 {
        let removed = write % 5 == 2 && write + 3 <= reached;
        let expected = (write <= reached && !removed).then(|| element(writer, write));
        if !matches!(ledger.get(&id(writer, write)), Ok(found) if found == expected) {
            let list = if write <= acknowledged && !removed {
                &mut report.lost
            } else {
                &mut report.torn
            };
            list.push(format!("{name}: element {}", id(writer, write)));
        }
    }
    Ok(())
}

/// What the file may hold when the power goes during this flush.
fn state(durable: &[u8], on_its_way: &Difference, random: &mut Random) -> Vec<u8> {
    let mut state = durable.to_vec();
    match random.below(4) {
        0 => {}
        1 => apply(&mut state, on_its_way.len, &on_its_way.sectors),
        2 => {
            let whole = random.below(on_its_way.sectors.len());
            let mut prefix = on_its_way.sectors[..whole].to_vec();
            if let Some((at, sector)) = on_its_way.sectors.get(whole) {
                prefix.push((*at, sector[..random.below(sector.len())].to_vec()));
            }
            let len = match random.below(2) {
                0 => on_its_way.len,
                _ => prefix.last().map_or(0, |(at, bytes)| at + bytes.len()),
            };
            apply(&mut state, len.max(durable.len()), &prefix);
        }
        _ => {
            let share = 1 + random.below(SECTOR);
            let chosen: Vec<_> = on_its_way
                .sectors
                .iter()
                .filter(|_| random.below(SECTOR) < share)
                .cloned()
                .collect();
            apply(&mut state, on_its_way.len.max(durable.len()), &chosen);
        }
    }
    state
}

fn apply(file: &mut Vec<u8>, len: usize, sectors: &[(usize, Vec<u8>)]) {
    file.resize(len, 0);
    for (at, bytes) in sectors {
        file[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
}
