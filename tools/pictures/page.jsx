// Draws one dashboard (window.PICTURE) with Grafana's own panel components, over the data of a Prometheus.
// Around them is what Grafana itself would do and does not publish as a package: the grid, the queries, the panels' options.
import React from 'react';
import {createRoot} from 'react-dom/client';
import {
  FieldColorModeId, FieldType, ThemeContext, createTheme, dateTime, getDisplayProcessor, getFieldDisplayName, standardTransformers,
  standardTransformersRegistry, toDataFrame, transformDataFrame,
} from '@grafana/data';
import {BigValue, BigValueColorMode, BigValueGraphMode, ErrorBoundaryAlert, GlobalStyles, PanelChrome, TimeSeries} from '@grafana/ui';
import {TableNG} from '@grafana/ui/unstable';

const {prometheus, dashboard, from, to, variables} = window.PICTURE;
const theme = createTheme({colors: {mode: 'dark'}});
const COLUMN = 64, ROW = 38, GAP = 8, HEAD = 56;
const {mergeTransformer: merge, organizeFieldsTransformer: organize} = standardTransformers;
standardTransformersRegistry.setInit(() => [
  {id: 'merge', name: 'merge', transformation: () => Promise.resolve(merge)},
  {id: 'organize', name: 'organize', transformation: () => Promise.resolve(organize)},
]);

const chosen = (text) => Object.entries(variables).reduce((done, [name, value]) => done.replaceAll('$' + name, value), text);
const legend = (format, labels) => format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');

async function ask(path, parameters) {
  const answer = await (await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`)).json();
  if (answer.status !== 'success') throw new Error(answer.error);
  return answer.data.result;
}

function setDeep(object, path, value) {
  const [first, ...rest] = path.split('.');
  object[first] = rest.length ? setDeep({...object[first]}, rest.join('.'), value) : value;
  return object;
}

function configured(frames, panel) {
  const {defaults, overrides} = panel.fieldConfig;
  let index = 0;
  for (const frame of frames) for (const field of frame.fields) {
    const config = {...defaults, custom: {...defaults.custom}, ...field.config};
    for (const {matcher, properties} of overrides ?? [])
      if (matcher.options === getFieldDisplayName(field, frame, frames)) for (const {id, value} of properties) setDeep(config, id, value);
    config.color ??= {mode: panel.type === 'timeseries' ? FieldColorModeId.PaletteClassic : FieldColorModeId.Thresholds};
    field.config = config;
    if (field.type === FieldType.number) field.state = {...field.state, seriesIndex: index++};
    field.display = getDisplayProcessor({field, theme, timeZone: 'utc'});
  }
  return frames;
}

async function load(panel) {
  const frames = [];
  for (const target of panel.targets) {
    const query = chosen(target.expr);
    if (!target.instant) {
      const step = Math.max(2, Math.round((to - from) / 240));
      for (const series of await ask('query_range', {query, start: from, end: to, step})) {
        const name = legend(target.legendFormat, series.metric);
        frames.push(toDataFrame({name, refId: target.refId, fields: [
          {name: 'Time', type: FieldType.time, values: series.values.map(([at]) => at * 1e3)},
          {name: 'Value', type: FieldType.number, config: {displayNameFromDS: name}, values: series.values.map(([, value]) => (Number.isFinite(+value) ? +value : null))},
        ]}));
      }
      continue;
    }
    const result = await ask('query', {query, time: to});
    const labels = Object.keys(result[0]?.metric ?? {});
    frames.push(toDataFrame({refId: target.refId, fields: [
      {name: 'Time', type: FieldType.time, values: result.map(({value}) => value[0] * 1e3)},
      ...labels.map((name) => ({name, type: FieldType.string, values: result.map(({metric}) => metric[name])})),
      {name: panel.type === 'table' ? `Value #${target.refId}` : 'Value', type: FieldType.number, values: result.map(({value}) => +value[1])},
    ]}));
  }
  if (panel.type !== 'table') return configured(frames, panel);
  const transformed = await new Promise((resolve, reject) =>
    transformDataFrame(panel.transformations, frames, {interpolate: (text) => text}).subscribe(resolve, reject));
  return configured(transformed, panel);
}

function Body({panel, frames, width, height}) {
  if (!frames.some(({length}) => length)) return <div style={{textAlign: 'center', paddingTop: height / 3}}>No data</div>;
  if (panel.type === 'table') return <TableNG data={frames[0]} width={width} height={height} />;
  if (panel.type === 'stat') {
    const field = frames[0].fields.at(-1);
    return <BigValue theme={theme} width={width} height={height} value={field.display(field.values.at(-1))}
      colorMode={BigValueColorMode.Value} graphMode={BigValueGraphMode.None} />;
  }
  const range = {from: dateTime(from * 1e3), to: dateTime(to * 1e3)};
  return <TimeSeries frames={frames} width={width} height={height} timeZone="utc" timeRange={{...range, raw: range}}
    legend={{...panel.options.legend, showLegend: true, calcs: []}} options={panel.options} />;
}

function Panel({panel}) {
  const [frames, setFrames] = React.useState(null), [problem, setProblem] = React.useState(null);
  React.useEffect(() => { load(panel).then(setFrames, (error) => setProblem(String(error))); }, []);
  React.useEffect(() => { if (frames || problem) window.drawn = (window.drawn ?? 0) + 1; }, [frames, problem]);
  const {x, y, w, h} = panel.gridPos;
  return <div style={{position: 'absolute', left: GAP + x * COLUMN, top: HEAD + y * ROW}}>
    <PanelChrome title={panel.title} description={panel.description} width={w * COLUMN - GAP} height={h * ROW - GAP}>
      {(width, height) => problem ? <pre>{problem}</pre> : frames && <ErrorBoundaryAlert><Body {...{panel, frames, width, height}} /></ErrorBoundaryAlert>}
    </PanelChrome>
  </div>;
}

const picked = dashboard.templating.list.map(({name, label, current}) => `${label}: ${variables[name] === '.*' ? 'All' : variables[name] ?? current?.text ?? 'Prometheus'}`);
createRoot(document.getElementById('page')).render(
  <ThemeContext.Provider value={theme}><GlobalStyles />
    <div style={{background: theme.colors.background.canvas, color: theme.colors.text.primary, position: 'absolute', inset: 0}}>
      <h4 style={{position: 'absolute', left: 16, top: 16}}>{dashboard.title}</h4>
      <div style={{position: 'absolute', right: 16, top: 18, color: theme.colors.text.secondary}}>{picked.join('  ·  ')}</div>
      {dashboard.panels.map((panel) => <Panel key={panel.id} panel={panel} />)}
    </div>
  </ThemeContext.Provider>);
