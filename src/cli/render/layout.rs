//! Columns and paragraphs that end at the eightieth column.

use crate::cli::style::Paint;
use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row, Table, Width,
    presets,
};

/// The last column that is written.
pub(super) const WIDTH: u16 = 80;

/// What a cell says by its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
}

/// How a column is laid out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fit {
    /// Text; shortened where there is no room.
    Text,
    /// Text that is of no use when shortened.
    Whole,
    /// Numbers, to the right.
    Number,
}

/// Columns under a header, every row on one line; notes may follow a row.
pub(super) struct Grid {
    table: Table,
    notes: Vec<String>,
    paint: Paint,
}

impl Grid {
    pub fn new(paint: Paint, columns: &[(&str, Fit)]) -> Grid {
        let mut table = base(paint);
        // Never in clean text: a cell is then shortened where its room ends, not at a word before.
        table.set_delimiter('\u{1}');
        let header = columns
            .iter()
            .map(|(name, _)| (name.to_uppercase(), Tone::Dim));
        table.set_header(row(header.collect()));
        for (i, (_, fit)) in columns.iter().enumerate() {
            if let Some(column) = table.column_mut(i) {
                column.set_padding((2, 0));
                match fit {
                    Fit::Text => {}
                    Fit::Whole => {
                        column.set_constraint(ColumnConstraint::ContentWidth);
                    }
                    Fit::Number => {
                        column.set_constraint(ColumnConstraint::ContentWidth);
                        column.set_cell_alignment(CellAlignment::Right);
                    }
                }
            }
        }
        Grid {
            table,
            notes: Vec::new(),
            paint,
        }
    }

    pub fn row(&mut self, cells: Vec<(String, Tone)>) {
        self.table.add_row(row(cells));
        self.notes.push(String::new());
    }

    /// A line under the row before, as it is.
    pub fn note(&mut self, text: &str) {
        if let Some(notes) = self.notes.last_mut() {
            notes.push_str(text);
        }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        // One line of header, then exactly one for each row.
        for (i, line) in self.table.lines().enumerate() {
            out.push_str(line.trim_end());
            out.push('\n');
            if let Some(notes) = i.checked_sub(1).and_then(|i| self.notes.get(i)) {
                out.push_str(notes);
            }
        }
        out
    }

    pub fn paint(&self) -> Paint {
        self.paint
    }
}

/// Names on the left, sentences on the right, wrapped.
pub(super) struct Fields(Table);

impl Fields {
    pub fn new(paint: Paint, indent: u16) -> Fields {
        let mut table = base(paint);
        table.add_row(vec![Cell::new(""), Cell::new("")]);
        for i in 0..2 {
            if let Some(column) = table.column_mut(i) {
                column.set_padding((if i == 0 { indent } else { 2 }, 0));
            }
        }
        if let Some(column) = table.column_mut(0) {
            // A name may be as long as its table's owner liked.
            column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(32)));
        }
        Fields(table)
    }

    pub fn add(&mut self, name: &str, tone: Tone, text: &str) {
        self.0
            .add_row(vec![cell(name.to_owned(), tone), Cell::new(text)]);
    }

    pub fn text(&self) -> String {
        // The first row only made the columns.
        self.0
            .lines()
            .skip(1)
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }
}

/// A paragraph, wrapped, after `indent` columns; `lead` stands before its first line.
pub(super) fn paragraph(lead: &str, indent: u16, text: &str) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .force_no_tty();
    let cells = if lead.is_empty() {
        vec![text]
    } else {
        vec![lead, text]
    };
    table.add_row(cells);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((indent, 0));
        if !lead.is_empty() {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    if let Some(column) = table.column_mut(1) {
        column.set_padding((1, 0));
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn base(paint: Paint) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_truncation_indicator("…");
    if paint.on() {
        table.enforce_styling();
        table.style_text_only();
    } else {
        table.force_no_tty();
    }
    table
}

fn row(cells: Vec<(String, Tone)>) -> Row {
    let mut row = Row::from(
        cells
            .into_iter()
            .map(|(t, tone)| cell(t, tone))
            .collect::<Vec<_>>(),
    );
    row.max_height(1);
    row
}

fn cell(text: String, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Warn => cell.fg(Color::DarkYellow),
        Tone::Bad => cell.fg(Color::DarkRed),
        Tone::Dim => cell.add_attribute(Attribute::Dim),
    }
}
