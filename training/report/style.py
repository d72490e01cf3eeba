"""How `report.html` looks: light, readable, fit for print."""

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #222; background: #fff;
  max-width: 1040px; margin: 0 auto; padding: 24px 28px 48px; }
h1 { font-size: 17px; color: #555; font-weight: 600; margin: 0 0 8px; }
h2 { font-size: 20px; margin: 40px 0 6px; border-bottom: 1px solid #ddd; padding-bottom: 4px; }
.headline { font-size: 30px; line-height: 1.25; font-weight: 700; margin: 0 0 8px; text-wrap: balance; }
.lead { font-size: 16px; margin: 0 0 4px; }
.explain, figcaption, .note { color: #555; }
.explain { margin: 4px 0 12px; max-width: 76ch; }
.note { font-size: 13px; }
.warning { background: #fff6e0; border-left: 4px solid #e69f00; padding: 6px 12px; margin: 10px 0; }
.notice { font-size: 13px; color: #555; margin: 0 0 20px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(225px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { border: 1px solid #ddd; border-radius: 8px; padding: 12px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; }
.tile span { display: block; font-size: 13px; color: #555; }
.tile .name { color: #222; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 6px 0 4px; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 8px; border-bottom: 1px solid #e6e6e6; vertical-align: top; }
th { font-weight: 600; border-bottom: 2px solid #bbb; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; min-width: 104px; }
td small { color: #666; white-space: nowrap; }
.plain th, .plain td { text-align: left; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); gap: 20px; }
figure { margin: 8px 0; break-inside: avoid; }
figure svg, figure img { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; font-family: inherit; }
figcaption { font-size: 14px; }
figcaption b { color: #222; }
dt { font-weight: 600; margin-top: 8px; break-after: avoid; }
dd { margin: 0 0 0 16px; color: #444; }
@media print {
  @page { margin: 14mm; }
  body { font-size: 10.5px; max-width: none; padding: 0; }
  h2 { font-size: 15px; break-after: avoid; margin-top: 20px; }
  .headline { font-size: 22px; }
  .lead { font-size: 12px; }
  .tiles { grid-template-columns: repeat(4, 1fr); gap: 8px; }
  .tile b { font-size: 19px; }
  table, figcaption, .notice, .tile span, .tile .name { font-size: 10px; }
  th, td { padding: 3px 5px; }
  th:first-child, td:first-child { min-width: 70px; }
  .scroll { overflow-x: visible; }
  tr, .tile, .explain { break-inside: avoid; }
  .explain { break-after: avoid; }
  .charts { grid-template-columns: 1fr 1fr; }
}
"""
