//! How far logs have got, as rows.

use portlayer::runtime::LogProgress;

use crate::cli::output::{Column, Row};

/// One log in `logs --sent`.
impl Row for LogProgress {
    const COLUMNS: &'static [Column] = &[
        Column::new("LOG"),
        Column::new("STATE"),
        Column::new("SENT LINES").right(),
        Column::new("DROPPED LINES").right(),
        Column::new("CUT BYTES").right(),
        Column::new("LOST BYTES").right(),
    ];

    fn cells(&self) -> Vec<Vec<u8>> {
        let counts = [
            self.sent_lines,
            self.dropped_lines,
            self.cut_bytes,
            self.lost_bytes,
        ];
        let state = if self.done { "done" } else { "sending" };
        let mut cells: Vec<Vec<u8>> = vec![self.log.as_str().into(), state.into()];
        cells.extend(counts.map(|count| count.to_string().into_bytes()));
        cells
    }

    fn name(&self) -> String {
        self.log.to_string()
    }
}
