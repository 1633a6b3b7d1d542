"""The style sheet of a report: light and dark, wide and narrow, screen and paper. It fetches nothing."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #16202b; --soft: #52606d; --rule: #d9dfe6; --wash: #eef2f6;
  --model: #0b62c4; --model-wash: #dbe9fa; --other: #6b7885; --on-model: #ffffff;
  --wrong: #b4430c; --good: #0f6b3d; --good-wash: #dff3e7; --bad: #a52020; --bad-wash: #fbe3e1;
  --open: #7a5200; --open-wash: #fbeecf;
  --part-1: #0b62c4; --part-2: #2a74c9; --part-3: #9cc4f0; --drop-1: #b4430c; --drop-2: #d97c46; --drop-3: #ecb48f;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10151b; --card: #181f27; --ink: #e8edf2; --soft: #a5b1bd; --rule: #313c48; --wash: #222b35;
    --model: #6cb0ff; --model-wash: #1d3553; --other: #94a2b0; --on-model: #07111d;
    --wrong: #ff9a5c; --good: #6fdc9f; --good-wash: #143425; --bad: #ff9a92; --bad-wash: #43201f;
    --open: #f3c666; --open-wash: #3a2d10;
    --part-1: #6cb0ff; --part-2: #2f6fb3; --part-3: #2f5b8a; --drop-1: #ff9a5c; --drop-2: #c56d36; --drop-3: #864a26;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--page); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
a { color: var(--model); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--model);
  outline-offset: 2px; }
.skip { position: absolute; left: -999px; }
.skip:focus { left: 1rem; top: 1rem; background: var(--card); padding: .5rem 1rem; z-index: 2; }
.layout { max-width: 1240px; margin: 0 auto; padding: 0 24px 64px; display: grid; gap: 0 32px;
  grid-template-columns: 172px minmax(0, 1fr); }
header.top { grid-column: 1 / -1; padding: 36px 0 28px; }
.brand { margin: 0 0 18px; font-size: .8rem; color: var(--soft); display: flex; flex-wrap: wrap; gap: 4px 14px; }
.brand b { color: var(--ink); letter-spacing: .02em; }
h1 { margin: 0 0 6px; font-size: 1.05rem; font-weight: 600; color: var(--soft); }
.headline { margin: 0 0 18px; max-width: 62rem; font-size: clamp(1.25rem, 2.5vw, 1.85rem); line-height: 1.35;
  font-weight: 600; letter-spacing: -.012em; text-wrap: pretty; }
.verdict { display: inline-block; margin: 0; padding: 4px 12px; border-radius: 99px; font-size: .9rem;
  font-weight: 600; }
.verdict.good { background: var(--good-wash); color: var(--good); }
.verdict.bad { background: var(--bad-wash); color: var(--bad); }
.verdict.open { background: var(--open-wash); color: var(--open); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 24px 0 0;
  padding: 0; }
.tiles > div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }
.tiles dt { font-size: .82rem; color: var(--soft); }
.tiles dd { margin: 2px 0 0; font-size: 1.55rem; font-weight: 650; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tiles dd.note { font-size: .8rem; font-weight: 400; color: var(--soft); line-height: 1.4; margin-top: 4px; }
.tiles .bounds { display: block; font-size: .84rem; font-weight: 400; color: var(--soft); }
nav.contents { font-size: .87rem; }
nav.contents ol { position: sticky; top: 24px; list-style: none; margin: 0; padding: 0; }
nav.contents a { display: block; padding: 4px 0 4px 12px; border-left: 2px solid var(--rule); color: var(--soft);
  text-decoration: none; }
nav.contents a:hover { color: var(--ink); border-color: var(--model); }
main { min-width: 0; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 24px 28px;
  margin: 0 0 20px;
  scroll-margin-top: 16px; }
h2 { margin: 0 0 4px; font-size: 1.22rem; letter-spacing: -.01em; }
h3 { margin: 26px 0 6px; font-size: 1rem; }
.lead { margin: 0 0 18px; color: var(--soft); max-width: 75ch; }
section p { max-width: 75ch; }
figure { margin: 0 0 18px; }
figcaption, .caption { font-size: .84rem; color: var(--soft); text-align: left; max-width: 80ch; }
figcaption { margin-top: 10px; }
.caption { margin: 0 0 4px; color: var(--ink); font-weight: 600; }
.scroll { overflow-x: auto; margin: 0 0 6px; }
.narrow-table { max-width: 50rem; }
div + div > .caption, figure + div > .caption { margin-top: 24px; }
.pair > div > .caption { margin-top: 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
thead th { font-size: .8rem; font-weight: 600; color: var(--soft); border-bottom-width: 2px; vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 8rem; }
/* A label such as reverted_card_payment? has no place to break: without this it pushes the figures out of sight. */
tbody th, tbody td:not(.number) { overflow-wrap: anywhere; }
tr:last-child > * { border-bottom: 0; }
.passed { color: var(--good); }
.failed { color: var(--bad); }
tr.sum > *, tr.ours > * { font-weight: 650; }
.number { text-align: right; white-space: nowrap; }
.number:last-child { padding-right: 2px; }
.bounds { color: var(--soft); font-weight: 400; white-space: nowrap; }
.swatch { display: inline-block; width: .72em; height: .72em; border-radius: 2px; margin-right: .55em;
  background: var(--rule); }
.quoted { max-width: 30rem; min-width: 15rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.near { min-width: 12rem; }
.near code { white-space: nowrap; margin-right: 6px; }
.whole { white-space: nowrap; }
.quiet { color: var(--soft); font-size: .85em; }
code, pre { font-family: var(--mono); font-size: .84rem; }
pre { background: var(--wash); border-radius: 8px; padding: 14px 16px; overflow-x: auto; line-height: 1.5;
  margin: 8px 0; }
code { overflow-wrap: anywhere; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--model); font-size: .9rem; padding: 3px 0; }
ul.plain { padding-left: 1.2em; max-width: 75ch; }
ul.plain li { margin: 5px 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 10px; padding: 0;
  font-size: .84rem;
  color: var(--soft); }
.key { display: inline-block; vertical-align: middle; width: 20px; height: 0; border-top: 3px solid var(--model);
  margin-right: 7px; }
.key.faint { border-color: var(--other); opacity: .75; border-width: 2px; }
.key.second { border-color: var(--wrong); }
.key.mark { border-top: 2px dashed var(--soft); }
.key.box { height: 12px; width: 12px; border: 0; border-radius: 2px; background: var(--model); }
.key.box.bars { background: var(--other); opacity: .55; }
.key.box.wrong { background: var(--wrong); }
svg { display: block; overflow: visible; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .line { fill: none; stroke: var(--model); stroke-width: 2.2; vector-effect: non-scaling-stroke;
  stroke-linejoin: round; }
svg .line.second { stroke: var(--wrong); }
svg .line.faint { stroke: var(--other); stroke-width: 1.4; opacity: .75; }
svg .mark { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .range { stroke: var(--other); stroke-width: 2.5; }
svg .range.ours { stroke: var(--model); stroke-width: 3.5; }
svg .dot { fill: var(--other); stroke: var(--card); stroke-width: 1.5; }
svg .dot.ours { fill: var(--model); }
svg .dot.second { fill: var(--wrong); }
svg .band { fill: var(--model-wash); }
svg .hit { fill: var(--model); }
svg .miss { fill: var(--wrong); }
svg .bar { fill: var(--other); opacity: .55; }
svg text { fill: var(--ink); font-size: 11px; font-family: inherit; }
svg text.soft { fill: var(--soft); }
svg text.strong { fill: var(--on-model); }
.dots { display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content; gap: 0 18px;
  align-items: center;
  font-size: .92rem; }
.dots .row { display: contents; }
.dots .ours { font-weight: 650; }
.dots .value { font-variant-numeric: tabular-nums; text-align: right; }
.dots .ticks { grid-column: 2; position: relative; height: 20px; font-size: .76rem; color: var(--soft); }
.ticks span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.plot { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 8px; font-size: .76rem;
  color: var(--soft); }
.plot .y { position: relative; min-width: 3.2em; }
.plot .y span { position: absolute; right: 0; transform: translateY(-50%); white-space: nowrap; }
.plot .x { grid-column: 2; position: relative; height: 18px; }
.plot .x span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.plot .name { grid-column: 2; text-align: center; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 20px 36px; }
.square { max-width: 400px; }
.flow { display: grid; gap: 4px; }
.flow .level, .flow .groups { display: flex; gap: 2px; }
.flow .groups { gap: 4px; }
.flow .group { display: grid; grid-template-columns: minmax(0, 1fr); gap: 4px; flex-basis: 0; min-width: 56px; }
.flow .box { flex-basis: 0; min-width: 2px; height: 44px; border-radius: 4px; overflow: hidden; padding: 4px 0 0 8px;
  font-size: .78rem; line-height: 1.25; white-space: nowrap; background: var(--wash); }
.flow .box b { display: block; font-size: .86rem; }
.flow .box.slim { padding-left: 0; }
.flow .box.slim > * { display: none; }
.p1 { background: var(--part-1) !important; color: var(--on-model); }
.p2 { background: var(--part-2) !important; color: var(--on-model); }
.p3 { background: var(--part-3) !important; color: var(--ink); }
.d1 { background: var(--drop-1) !important; color: var(--on-model); }
.d2 { background: var(--drop-2) !important; color: var(--ink); }
.d3 { background: var(--drop-3) !important; color: var(--ink); }
@media (prefers-color-scheme: dark) {
  .p2 { color: #fff; }
  .d2 { color: #07111d; }
  svg text.middle { fill: var(--on-model); }
}
.classes td:nth-child(3) { width: 16%; min-width: 120px; vertical-align: middle; }
.block { display: block; font-weight: 400; max-width: 22rem; white-space: normal; }
.wide .bounds { display: block; }
.wide thead th { white-space: normal; max-width: 9rem; }
.wide tbody th { min-width: 11rem; }
.exchange { border-top: 1px solid var(--rule); padding: 16px 0 18px; }
.exchange:first-of-type { border-top: 0; padding-top: 0; }
.exchange h3 { margin: 0 0 4px; display: flex; flex-wrap: wrap; gap: 0 12px; align-items: baseline; }
.exchange h3 .quiet { font-weight: 400; }
.exchange h4 { margin: 0 0 4px; font-size: .8rem; color: var(--soft); }
.asked { max-width: 80ch; margin-bottom: 12px; }
.told { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 240px), 1fr)); gap: 10px; }
.said { background: var(--wash); border-radius: 8px; padding: 10px 14px; min-width: 0; font-size: .92rem; }
.said.reference { background: none; border: 1px dashed var(--rule); }
.said.after { background: var(--model-wash); }
.words { white-space: pre-wrap; overflow-wrap: anywhere; }
.remarks { margin: 8px 0 0; display: flex; flex-wrap: wrap; gap: 0 14px; }
details.long { margin: 0; }
details.long summary { list-style: none; color: inherit; font-size: inherit; padding: 0; }
details.long summary::-webkit-details-marker { display: none; }
details.long .more { display: block; color: var(--model); font-size: .85rem; }
details.long[open] .start { display: none; }
details.long[open] .more { margin-bottom: 4px; }
.trained { background: var(--model-wash); color: var(--ink); text-decoration: underline 2px var(--model);
  text-underline-offset: 3px; border-radius: 2px; }
.masked { color: var(--soft); }
pre.tokens { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 22rem; overflow-y: auto; line-height: 1.75;
  margin-bottom: 18px; }
.tokens-legend .trained, .tokens-legend .masked { font-family: var(--mono); padding: 0 2px; }
footer { grid-column: 1 / -1; color: var(--soft); font-size: .82rem; padding: 12px 0 0; }
@media (max-width: 1000px) {
  .layout { grid-template-columns: minmax(0, 1fr); padding: 0 16px 40px; }
  nav.contents { margin: 0 0 18px; }
  nav.contents ol { position: static; display: flex; flex-wrap: wrap; gap: 4px 6px; }
  nav.contents a { border: 1px solid var(--rule); border-radius: 99px; padding: 2px 11px; background: var(--card); }
}
@media (max-width: 640px) {
  table { font-size: .85rem; }
  th, td { padding-right: 11px; }
  header.top { padding: 22px 0 18px; }
  section { padding: 18px 16px; border-radius: 10px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; }
  .tiles > div { padding: 10px 12px; }
  .tiles dd { font-size: 1.3rem; }
  .dots { grid-template-columns: minmax(0, 1fr) max-content; gap: 0 10px; }
  .dots .label { grid-column: 1; margin-top: 8px; }
  .dots .value { grid-column: 2; grid-row: auto; margin-top: 8px; }
  .dots .track { grid-column: 1 / -1; order: 0; }
  .dots .row { display: grid; grid-column: 1 / -1; grid-template-columns: subgrid; }
  .dots .row .label { order: 1; } .dots .row .value { order: 2; } .dots .row .track { order: 3; }
  .dots .ticks { grid-column: 1 / -1; }
}
@media print {
  :root { color-scheme: light; }
  body { background: #fff; font-size: 10.5pt; }
  nav.contents, .skip { display: none; }
  .layout { display: block; max-width: none; padding: 0; }
  section { border: 0; border-top: 1px solid var(--rule); border-radius: 0; padding: 14px 0; break-inside: auto; }
  figure, tr, .tiles, pre:not(.tokens) { break-inside: avoid; }
  h2, h3, .lead { break-after: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; }
  details > :not(summary) { display: block; }
  .scroll { overflow: visible; }
  pre.tokens { max-height: none; }
  details.long .start, details.long .more { display: none; }
  .exchange { break-inside: auto; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
@media print and (prefers-color-scheme: dark) {
  :root { --page: #fff; --card: #fff; --ink: #16202b; --soft: #52606d; --rule: #d9dfe6; --wash: #eef2f6;
  --model: #0b62c4;
    --model-wash: #dbe9fa; --other: #6b7885; --on-model: #fff; --wrong: #b4430c; --part-1: #0b62c4; --part-2: #2a74c9;
    --part-3: #9cc4f0; --drop-1: #b4430c; --drop-2: #d97c46; --drop-3: #ecb48f; }
}
"""
