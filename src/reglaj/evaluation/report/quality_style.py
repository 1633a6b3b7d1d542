"""What the page on the quality of data needs beside the style sheet of all reports."""

from reglaj.evaluation.report.style import STYLE

QUALITY_STYLE = (
    STYLE
    + """
.finding { border-top: 1px solid var(--rule); padding: 16px 0 14px; display: grid; gap: 0 18px;
  grid-template-columns: 84px minmax(0, 1fr); }
.finding:first-of-type { border-top: 0; padding-top: 4px; }
.finding h3 { margin: 0 0 4px; font-size: 1.06rem; overflow-wrap: anywhere; }
.finding p { margin: 0 0 6px; }
.finding .mark { align-self: start; justify-self: start; padding: 2px 11px; border-radius: 99px; font-size: .8rem;
  font-weight: 650; white-space: nowrap; background: var(--good-wash); color: var(--good); }
.finding.act .mark { background: var(--bad-wash); color: var(--bad); }
.finding.look .mark { background: var(--open-wash); color: var(--open); }
.finding .do { border-left: 3px solid var(--model); padding-left: 12px; }
.finding .do b { color: var(--model); }
.finding .count { color: var(--soft); font-weight: 400; font-size: .9rem; white-space: nowrap; }
.quotes { list-style: none; margin: 8px 0; padding: 0; display: grid; gap: 8px;
  grid-template-columns: minmax(0, 1fr); max-width: 52rem; }
.quotes > li { background: var(--wash); border-radius: 8px; padding: 9px 14px; font-size: .92rem; min-width: 0; }
.quotes .quotes { margin: 4px 0; }
.quotes .quotes > li { border-left: 2px solid var(--rule); border-radius: 0; padding: 1px 0 1px 12px; }
.quotes .remarks { margin: 3px 0 0; overflow-wrap: anywhere; }
.quotes .remarks b { font-weight: 600; color: var(--ink); }
.twin + .twin { border-top: 1px dashed var(--rule); margin-top: 7px; padding-top: 7px; }
.which { color: var(--soft); font-size: .8rem; }
.bars { display: grid; grid-template-columns: fit-content(15rem) minmax(0, 1fr) max-content; gap: 5px 14px;
  align-items: center; font-size: .88rem; }
.bars .row { display: contents; }
.bars .name { overflow-wrap: anywhere; line-height: 1.3; }
.bars .track { display: flex; height: 15px; min-width: 40px; }
.bars .track span { flex: none; min-width: 1px; border-radius: 2px; background: var(--model); }
.bars .track span + span { border-left: 1px solid var(--card); }
.bars .track .rest { background: var(--other); opacity: .55; }
.bars .track .wrong { background: var(--wrong); }
.bars .value { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
.key.box.p1 { background: var(--part-1) !important; } .key.box.p2 { background: var(--part-2) !important; }
.key.box.p3 { background: var(--part-3) !important; }
.said-split { border-left: 3px solid var(--model); padding: 2px 0 2px 14px; margin: 0 0 18px; font-size: 1.02rem; }
.errors .quoted { max-width: 26rem; }
.errors td:nth-child(2) { min-width: 9rem; } .errors td:nth-child(3) { min-width: 11rem; }
.gate td:nth-child(3) { min-width: 9rem; }
@media (max-width: 640px) {
  .finding { grid-template-columns: minmax(0, 1fr); gap: 6px; }
  .bars { grid-template-columns: minmax(0, 1fr) max-content; gap: 0 10px; }
  .bars .row { display: grid; grid-column: 1 / -1; grid-template-columns: subgrid; margin-bottom: 7px; }
  .bars .track { grid-column: 1 / -1; order: 3; }
}
@media print { .finding, .quotes > li { break-inside: avoid; } }
"""
)
