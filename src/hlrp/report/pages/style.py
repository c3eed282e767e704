"""Style sheet of the report pages: one column, system fonts, light or dark by the setting of the reader's system."""

from __future__ import annotations

CSS = """
:root { --paper: #ffffff; --ink: #1f2328; --faint: #5c6570; --rule: #d8dee4; --tint: #f5f7f9;
  --accent: #0072b2; --good: #00694d; --good-tint: #dff3ec; --weak: #94420a; --weak-tint: #fbe9dc;
  --unsure: #5c5200; --unsure-tint: #f6f0c9; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181d; --ink: #e3e7eb; --faint: #9aa5b1; --rule: #313841; --tint: #1c2229;
    --accent: #6cbcec; --good: #6fdcb8; --good-tint: #12382d; --weak: #f5ab78; --weak-tint: #43260f;
    --unsure: #e6d873; --unsure-tint: #37330f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 900px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.25rem; letter-spacing: -0.01em; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 0.9rem;
  padding-bottom: 0.35rem; border-bottom: 1px solid var(--rule); }
small { color: var(--faint); font-size: 0.85em; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 0.9rem; }
.facts div { background: var(--tint); border-radius: 10px; padding: 0.9rem 1.1rem; }
.facts b { display: block; font-size: 1.7rem; line-height: 1.25; color: var(--accent); }
.facts span { color: var(--faint); font-size: 0.9rem; }
ol { padding-left: 1.4rem; margin: 0; }
li { margin: 0.3rem 0; padding-left: 0.25rem; }
li::marker { color: var(--faint); }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 0.95rem; }
th { text-align: left; color: var(--faint); font-weight: 600; font-size: 0.85rem; }
th, td { padding: 0.5rem 1rem 0.5rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
tbody tr:last-child td { border-bottom: 0; }
.judged td:first-child { min-width: 15rem; }
.judged td:not(:first-child) { white-space: nowrap; }
.good, .weak, .unsure { border-radius: 999px; padding: 0.1rem 0.6rem; font-size: 0.85rem; font-weight: 600; }
.good { color: var(--good); background: var(--good-tint); }
.weak { color: var(--weak); background: var(--weak-tint); }
.unsure { color: var(--unsure); background: var(--unsure-tint); }
.conclusion { margin: 1.1rem 0 0; }
figure { margin: 1.4rem 0 0; }
figure img { display: block; width: 100%; height: auto; background: #ffffff; border: 1px solid var(--rule);
  border-radius: 10px; padding: 0.5rem; }
figcaption { color: var(--faint); font-size: 0.9rem; margin-top: 0.45rem; }
.videos { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 1rem; }
.videos figure { margin: 0; }
.videos video { display: block; width: 100%; height: auto; border-radius: 10px; background: #000000; }
details { margin: 0 0 0.7rem; }
summary { cursor: pointer; font-weight: 600; font-size: 0.95rem; }
pre { margin: 0.4rem 0 0; padding: 0.8rem 1rem; background: var(--tint); border-radius: 10px;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 0.85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media print { details pre { white-space: pre-wrap; } figure, tr { break-inside: avoid; } }
"""
