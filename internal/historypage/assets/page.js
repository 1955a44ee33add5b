'use strict';
(() => {
  // ---- small things ----
  const $ = (id) => document.getElementById(id);
  // h makes an element. Text gets in as text and in no other way.
  const h = (tag, props, ...children) => {
    const el = document.createElement(tag);
    for (const [k, v] of Object.entries(props || {})) {
      if (v === undefined || v === null || v === false) continue;
      if (k === 'class') el.className = v;
      else if (k === 'on') for (const [name, f] of Object.entries(v)) el.addEventListener(name, f);
      else if (k === 'at') for (const [name, value] of Object.entries(v)) el.style[name] = value;
      else el.setAttribute(k, v === true ? '' : v);
    }
    for (const c of children.flat(3)) if (c !== null && c !== undefined && c !== false) el.append(c);
    return el;
  };
  const fill = (el, ...children) => { el.replaceChildren(...children.flat(3).filter((c) => c !== null && c !== undefined && c !== false)); return el; };
  const number = new Intl.NumberFormat('en');
  const n = (v) => number.format(v);
  const many = (v, one, more) => n(v) + ' ' + (v === 1 ? one : more || one + 's');
  const two = (v) => String(v).padStart(2, '0');
  const took = (ms) => {
    if (ms < 0) return '–';
    if (ms < 1000) return Math.round(ms) + ' ms';
    if (ms < 59950) return (ms / 1000).toFixed(1) + ' s';
    const s = Math.round(ms / 1000);
    if (s < 3600) return Math.floor(s / 60) + ' m ' + two(s % 60) + ' s';
    return Math.floor(s / 3600) + ' h ' + two(Math.floor(s % 3600 / 60)) + ' m';
  };
  const seconds = (ms) => (ms / 1000).toFixed(2);
  const size = (b) => {
    if (b < 0 || b === undefined) return '–';
    const units = ['B', 'kB', 'MB', 'GB', 'TB'];
    let i = 0;
    while (b >= 1000 && i < units.length - 1) { b /= 1000; i++; }
    return (i === 0 || b >= 100 ? Math.round(b) : b.toFixed(1)) + ' ' + units[i];
  };
  const clock = (t) => { const d = new Date(t); return two(d.getHours()) + ':' + two(d.getMinutes()) + ':' + two(d.getSeconds()); };
  const day = (t) => { const d = new Date(t); return d.getFullYear() + '-' + two(d.getMonth() + 1) + '-' + two(d.getDate()); };
  const when = (t) => (day(t) === day(Date.now()) ? '' : day(t) + ' ') + clock(t);
  const glyphs = { completed: '✓', done: '✓', healthy: '✓', failed: '✕', running: '▶', cached: '≡', canceled: '⊘', waiting: '…', away: '⊘' };
  const badge = (state, text) => h('span', { class: 'badge ' + state }, h('span', { 'aria-hidden': 'true' }, glyphs[state] || '·'), text || state);
  const toBuild = (ref) => '#/build/' + ref.split('/').map(encodeURIComponent).join('/');
  const say = (text) => { $('say').textContent = text; };
  const head = (cells) => h('thead', null, h('tr', null, cells.map(([text, cls]) => h('th', { scope: 'col', class: cls }, text))));
  const button = (text, f, props) => h('button', { type: 'button', on: { click: f }, ...props }, text);

  // ---- tooltip ----
  const tip = $('tip');
  let tipOf = null;
  const showTip = (el, step, i) => {
    fill(tip, h('b', null, (i + 1) + '. ' + step.name), facts(step));
    tip.hidden = false;
    tipOf = el;
    placeTip();
  };
  const placeTip = () => {
    const el = tipOf;
    const r = el.getBoundingClientRect(), t = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(r.left, innerWidth - t.width - 8)) + 'px';
    tip.style.top = (r.bottom + t.height + 12 > innerHeight ? Math.max(4, r.top - t.height - 6) : r.bottom + 6) + 'px';
  };
  const hideTip = () => { tip.hidden = true; };
  document.addEventListener('keydown', (e) => { if (e.key === 'Escape') hideTip(); });
  document.addEventListener('scroll', () => { if (tip.hidden) return; if (tipOf === document.activeElement) placeTip(); else hideTip(); }, true);
  const facts = (s) => s.start < 0 ? s.state + '; not begun'
    : `${s.state}, ${took(s.busy)}, from ${took(s.start)} to ${took(s.end)}` + (s.critical ? `; on the critical path (${took(s.critical)} of it)` : '') + (s.lines ? '; ' + many(s.lines, 'line') + ' of log' : '');

  // ---- timeline ----
  const laneHeight = 30;
  const niceStep = (span, count) => {
    const raw = Math.max(span, 1) / count;
    for (const s of [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 15000, 30000, 60000, 120000, 300000, 600000, 1800000, 3600000, 7200000, 21600000, 86400000]) if (s >= raw) return s;
    return 86400000 * Math.ceil(raw / 86400000);
  };
  const tick = (ms, step) => ms === 0 ? '0' : step < 100 ? ms + ' ms' : step < 1000 ? (ms / 1000).toFixed(1) + ' s' : ms < 60000 ? ms / 1000 + ' s' : took(ms);
  const timeline = (steps, laneCount, total, o) => {
    total = Math.max(total, 1, ...steps.map((s) => s.end));
    const inner = h('div', { class: 'tl-in' });
    const axis = h('div', { class: 'axis', 'aria-hidden': 'true' });
    const lanes = h('div', { class: 'lanes', at: { height: Math.max(1, laneCount) * laneHeight + 'px' } });
    const bars = [];
    const order = steps.map((_, i) => i).filter((i) => steps[i].start >= 0).sort((a, b) => steps[a].start - steps[b].start || a - b);
    for (const i of order) {
      const s = steps[i];
      const bar = h('button', {
        type: 'button', id: o.prefix + i, class: `step s-${s.state}` + (s.critical ? ' crit' : ''), tabindex: '-1',
        'aria-label': `Step ${i + 1}: ${s.name}. ${facts(s)}`, 'aria-current': o.current === i && 'true',
        at: { left: s.start / total * 100 + '%', width: Math.max(0, s.end - s.start) / total * 100 + '%', top: s.lane * laneHeight + 'px' },
        on: { click: () => o.choose && o.choose(i), mouseenter: (e) => showTip(e.target, s, i), mouseleave: hideTip, focus: (e) => showTip(e.target, s, i), blur: hideTip },
      }, (s.state === 'failed' ? '✕ ' : s.state === 'cached' ? '≡ ' : '') + s.text);
      if ((s.end - s.start) / total < .012) bar.classList.add('thin');
      bars.push(bar);
    }
    if (bars.length) bars[0].tabIndex = 0;
    const move = (to) => { for (const b of bars) b.tabIndex = -1; bars[to].tabIndex = 0; bars[to].focus(); };
    lanes.addEventListener('keydown', (e) => {
      const at = bars.indexOf(document.activeElement);
      if (at < 0) return;
      let to = -1;
      if (e.key === 'ArrowRight') to = at + 1;
      else if (e.key === 'ArrowLeft') to = at - 1;
      else if (e.key === 'Home') to = 0;
      else if (e.key === 'End') to = bars.length - 1;
      else if (e.key === 'ArrowDown' || e.key === 'ArrowUp') {
        const lane = steps[order[at]].lane + (e.key === 'ArrowDown' ? 1 : -1), from = steps[order[at]].start;
        let best = Infinity;
        order.forEach((i, k) => { const d = Math.abs(steps[i].start - from); if (steps[i].lane === lane && d < best) { best = d; to = k; } });
      } else return;
      e.preventDefault();
      if (to >= 0 && to < bars.length) move(to);
    });
    const ticks = (zoom) => {
      const step = niceStep(total, 9 * zoom), marks = [], grid = [];
      for (let t = 0; t <= total && marks.length < 2000; t += step) {
        if (t / total < .97) marks.push(h('span', { at: { left: t / total * 100 + '%' } }, tick(t, step)));
        grid.push(h('div', { class: 'grid', 'aria-hidden': 'true', at: { left: t / total * 100 + '%' } }));
      }
      fill(axis, marks);
      fill(lanes, bars);
      fill(inner, grid, axis, lanes);
    };
    ticks(1);
    const el = h('div', { class: 'tl', role: 'group', 'aria-label': `${o.label}: ${many(steps.length, 'step')} in ${many(laneCount, 'lane')}. The arrow keys move between steps${o.choose ? ", Enter shows a step's log" : ''}. The table says the same.` }, inner);
    return { el, zoom: (z) => { inner.style.width = z * 100 + '%'; ticks(z); } };
  };
  const legend = () => h('ul', { class: 'legend', 'aria-label': 'Legend' }, [['done', 's-done'], ['≡ cached', 's-cached'], ['✕ failed', 's-failed'], ['running', 's-running'], ['canceled', 's-canceled'], ['critical path', 's-done crit']].map(([t, c]) => h('li', null, h('i', { class: c }), t)));

  // ---- logs ----
  const inflate = async (b64) => {
    const raw = atob(b64), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
    return new Response(stream).text();
  };
  const unpack = async (logs) => {
    const all = JSON.parse(logs.zip ? await inflate(logs.zip) : logs.plain || '[]');
    const byStep = new Map();
    for (const l of all) {
      const text = l.text.split('\n'), entries = [];
      let at = 0, err = false, turn = 0;
      const turns = l.stderr || [];
      for (let i = 0; i < text.length; i++) {
        if (l.left && i === (l.leftAt || 0)) entries.push({ step: l.step, gap: l.left });
        if (turns[turn] === i) { err = !err; turn++; }
        at += l.times[i] || 0;
        entries.push({ step: l.step, time: at, text: text[i], err });
      }
      byStep.set(l.step, entries);
    }
    return byStep;
  };

  const lineHeight = 20;
  const logView = (view) => {
    const box = h('div', { class: 'log panel', tabindex: '0', role: 'region', 'aria-label': 'Log' });
    const inner = h('div');
    box.append(inner);
    const pick = h('select', { id: 'log-step' });
    const find = h('input', { type: 'search', id: 'log-find', autocomplete: 'off', spellcheck: 'false' });
    const only = h('input', { type: 'checkbox', id: 'log-only' });
    const count = h('span', { class: 'count', id: 'log-count', role: 'status' });
    const prev = button('Previous', () => go(-1)), next = button('Next', () => go(1));
    let byStep = new Map(), entries = [], hits = [], at = -1, needle = '', drawn = '', widest = 0;
    const rows = () => {
      const out = [];
      const one = pick.value === '' ? -1 : Number(pick.value);
      const steps = one >= 0 ? [one] : [...byStep.keys()].sort((a, b) => a - b);
      for (const i of steps) {
        const lines = byStep.get(i) || [];
        const shown = only.checked && needle ? lines.filter((e) => e.text !== undefined && e.text.toLowerCase().includes(needle)) : lines;
        if (one < 0 && shown.length) out.push({ step: i, head: true });
        for (const e of shown) out.push(e);
      }
      return out;
    };
    const search = (keep) => {
      needle = find.value.toLowerCase();
      entries = rows();
      hits = [];
      widest = 0;
      entries.forEach((e, i) => {
        if (e.text === undefined) return;
        widest = Math.max(widest, e.text.length);
        if (needle && e.text.toLowerCase().includes(needle)) hits.push(i);
      });
      if (!keep) at = hits.length ? 0 : -1;
      at = Math.min(at, hits.length - 1);
      inner.style.height = entries.length * lineHeight + 'px';
      inner.style.width = `max(100%, calc(8rem + ${widest}ch))`;
      prev.disabled = next.disabled = hits.length === 0;
      told();
      drawn = '';
      if (at >= 0 && !keep) reveal(hits[at]);
      draw();
    };
    const told = () => {
      const lines = entries.filter((e) => e.text !== undefined).length;
      count.textContent = needle ? (hits.length ? `${n(at + 1)} of ${many(hits.length, 'line')}` : 'not found') : many(lines, 'line');
    };
    const reveal = (i) => { const top = i * lineHeight; if (top < box.scrollTop || top > box.scrollTop + box.clientHeight - 2 * lineHeight) box.scrollTop = Math.max(0, top - box.clientHeight / 3); };
    const go = (by) => { if (!hits.length) return; at = (at + by + hits.length) % hits.length; reveal(hits[at]); told(); drawn = ''; draw(); };
    const marked = (text) => {
      if (!needle) return [text];
      const out = [], low = text.toLowerCase();
      let from = 0;
      for (let i = low.indexOf(needle); i >= 0 && out.length < 400; i = low.indexOf(needle, from)) {
        out.push(text.slice(from, i), h('mark', null, text.slice(i, i + needle.length)));
        from = i + needle.length;
      }
      out.push(text.slice(from));
      return out;
    };
    const row = (e, i) => {
      const top = { top: i * lineHeight + 'px' };
      if (e.head) { const s = view.build.steps[e.step]; return h('div', { class: 'ln h', at: top }, h('span', { class: 't' }, '#' + (e.step + 1)), h('span', { class: 'e', 'aria-hidden': 'true' }, glyphs[s.state] || ''), h('span', null, s.name)); }
      if (e.gap) return h('div', { class: 'ln g', at: top }, h('span', { class: 't' }), h('span', { class: 'e' }), `… ${many(e.gap, 'line')} left out …`);
      return h('div', { class: 'ln' + (i === hits[at] ? ' now' : ''), at: top }, h('span', { class: 't' }, seconds(e.time)), h('span', { class: 'e', title: e.err ? 'standard error' : undefined }, e.err ? '2>' : ''), h('span', null, marked(e.text)));
    };
    const draw = () => {
      const from = Math.max(0, Math.floor(box.scrollTop / lineHeight) - 12), to = Math.min(entries.length, Math.ceil((box.scrollTop + box.clientHeight) / lineHeight) + 12);
      const key = from + '-' + to;
      if (key === drawn) return;
      drawn = key;
      const some = [];
      for (let i = from; i < to; i++) some.push(row(entries[i], i));
      if (!entries.length) some.push(h('p', { class: 'empty' }, needle && only.checked ? 'No line has this.' : 'This printed nothing.'));
      fill(inner, some);
    };
    box.addEventListener('scroll', draw, { passive: true });
    new ResizeObserver(draw).observe(box);
    pick.addEventListener('change', () => { view.current = pick.value === '' ? -1 : Number(pick.value); view.mark(); about(); box.scrollTop = 0; search(); });
    let typed = 0;
    find.addEventListener('input', () => { clearTimeout(typed); typed = setTimeout(search, 120); });
    find.addEventListener('keydown', (e) => { if (e.key === 'Enter') { e.preventDefault(); go(e.shiftKey ? -1 : 1); } });
    only.addEventListener('change', () => search());
    const aboutEl = h('div');
    const about = () => {
      const i = view.current, s = view.build.steps[i];
      if (!s) return fill(aboutEl);
      const link = (j) => button(`${j + 1}. ${view.build.steps[j].name}`, () => view.choose(j), { class: 'link' });
      fill(aboutEl, h('div', { class: 'panel card' },
        h('div', { class: 'head' }, h('h2', null, 'Step ' + (i + 1)), badge(s.state), h('span', { class: 'muted' }, facts(s))),
        h('pre', null, s.name),
        s.error && h('div', { class: 'alarm' }, h('strong', null, 'Failed'), h('pre', null, s.error)),
        s.inputs && h('details', null, h('summary', null, 'Needs ' + many(s.inputs.length, 'step')), h('ul', null, s.inputs.map((j) => h('li', null, link(j))))),
        s.parts && h('details', null, h('summary', null, many(s.parts.length, 'part')), h('div', { class: 'scroll' }, h('table', null, h('caption', { class: 'unseen' }, 'What the step did'), head([['Part'], ['Size', 'num'], ['Took', 'num']]),
          h('tbody', null, s.parts.map((p) => h('tr', null, h('th', { scope: 'row', class: 'mono' }, p.name), h('td', { class: 'num' }, p.total || p.current ? size(p.total || p.current) : ''), h('td', { class: 'num' }, p.took ? took(p.took) : ''))))))),
      ));
    };
    const el = h('div', null, aboutEl, h('div', { class: 'tools', role: 'search', 'aria-label': 'The log' },
      h('label', { for: 'log-step' }, 'Step', pick), h('label', { for: 'log-find' }, 'Find in the log', find), prev, next,
      h('label', { class: 'check', for: 'log-only' }, only, 'Only lines that have it'), count), box);
    let loaded = null;
    return {
      el,
      // open unpacks the log when it is first looked at.
      open: async () => {
        const logs = view.build.logs;
        if (loaded !== logs) {
          loaded = logs;
          try { byStep = await unpack(logs); } catch (e) { fill(inner, h('p', { class: 'empty' }, 'This browser cannot unpack the log: ' + e.message)); return; }
        }
        const chosen = view.current < 0 ? '' : String(view.current);
        fill(pick, h('option', { value: '' }, 'All steps'), view.build.steps.map((s, i) => h('option', { value: i }, `${i + 1}. ${s.name.slice(0, 120)}` + (s.lines ? ` (${n(s.lines)})` : ''))));
        pick.value = chosen;
        about();
        search(true);
        if (needle && at < 0 && hits.length) { at = 0; told(); }
      },
      top: () => { box.scrollTop = 0; },
      end: () => { box.scrollTop = inner.offsetHeight; },
      focus: () => find.focus(),
    };
  };

  // ---- the table of steps ----
  const stepTable = (view) => {
    let by = 'start', down = false;
    const body = h('tbody');
    const columns = [['#', 'start', 'num'], ['Step', 'name'], ['State', 'state'], ['Began', 'start2', 'num'], ['Took', 'busy', 'num'], ['Of the critical path', 'critical', 'num'], ['Log lines', 'lines', 'num']];
    const value = (i, k) => { const s = view.build.steps[i]; return k === 'start' ? i : k === 'start2' ? s.start : s[k] || (k === 'name' || k === 'state' ? '' : 0); };
    const heads = columns.map(([text, k, cls]) => h('th', { scope: 'col', class: cls }, h('button', { type: 'button', class: 'sort', on: { click: () => { down = by === k ? !down : k !== 'name' && k !== 'state' && k !== 'start' && k !== 'start2'; by = k; draw(); } } }, text)));
    const draw = () => {
      const b = view.build, longest = Math.max(1, ...b.steps.map((s) => s.busy));
      heads.forEach((th, i) => { if (columns[i][1] === by) th.setAttribute('aria-sort', down ? 'descending' : 'ascending'); else th.removeAttribute('aria-sort'); });
      const order = b.steps.map((_, i) => i).sort((x, y) => { const a = value(x, by), c = value(y, by); return (a < c ? -1 : a > c ? 1 : x - y) * (down ? -1 : 1); });
      fill(body, order.map((i) => {
        const s = b.steps[i];
        return h('tr', null,
          h('td', { class: 'num muted' }, i + 1),
          h('th', { scope: 'row' }, s.stage && h('span', { class: 'stage' }, s.stage), button(s.text, () => view.choose(i), { class: 'link', id: 'row-' + i })),
          h('td', null, badge(s.state)),
          h('td', { class: 'num' }, s.start < 0 ? '–' : took(s.start)),
          h('td', { class: 'num' }, s.start < 0 ? '–' : took(s.busy), h('span', { class: 'meter' + (s.critical ? ' c' : ''), 'aria-hidden': 'true' }, h('i', { at: { width: s.busy / longest * 100 + '%' } }))),
          h('td', { class: 'num' }, s.critical ? took(s.critical) : ''),
          h('td', { class: 'num' }, s.lines ? n(s.lines) : ''));
      }));
    };
    return { el: h('div', { class: 'panel scroll' }, h('table', { id: 'steps' }, h('caption', { class: 'unseen' }, 'The steps of the build'), h('thead', null, h('tr', null, heads)), body)), draw };
  };

  // ---- one build ----
  const pairs = (title, all) => all && all.length ? h('div', null, h('h3', null, title), h('dl', { class: 'kv' }, all.map((p) => [h('dt', null, p.name), h('dd', { class: 'mono' }, p.value)]))) : null;
  const details = (b) => {
    const cachedSteps = b.steps.filter((s) => s.state === 'cached').length;
    return h('div', { class: 'panel card' }, h('div', { class: 'columns' },
      pairs('Inputs', b.inputs), pairs('Platforms', (b.platforms || []).map((p, i) => ({ name: 'Platform ' + (i + 1), value: p }))),
      h('div', null, h('h3', null, 'Cache'), h('dl', { class: 'kv' }, h('dt', null, 'From the cache'), h('dd', null, `${n(cachedSteps)} of ${many(b.steps.length, 'step')} shown` + (b.total ? `; ${n(b.cached)} of ${n(b.total)} as the daemon counts` : '')),
        h('dt', null, 'Work done'), h('dd', null, took(b.steps.reduce((a, s) => a + s.busy, 0)) + ' in ' + took(b.duration)))),
      pairs('Build arguments', b.args), pairs('Labels', b.labels), pairs('Settings', b.settings),
      (b.outputs || []).map((o) => pairs('Output: ' + o.type, o.attrs && o.attrs.length ? o.attrs : [{ name: 'Type', value: o.type }]))),
    b.materials && h('div', null, h('h3', null, 'Made of'), h('div', { class: 'scroll' }, h('table', null, h('caption', { class: 'unseen' }, 'What the build was made of'), head([['Source'], ['Digest']]), h('tbody', null, b.materials.map((m) => h('tr', null, h('th', { scope: 'row', class: 'mono' }, m.uri), h('td', { class: 'mono' }, (m.digests || []).join(', ')))))))),
    b.warnings && h('div', null, h('h3', null, 'Warnings'), h('ul', null, b.warnings.map((w) => h('li', null, w)))));
  };
  const attachments = (b) => {
    if (!b.attachments) return h('p', { class: 'empty panel' }, 'Nothing hangs on this record.');
    const content = (a) => {
      if (a.content) return h('details', null, h('summary', null, 'Show the content'), h('pre', { tabindex: '0' }, a.content));
      if (!live) return null;
      const pre = h('pre', { tabindex: '0' }, 'reading …');
      let asked = false;
      return h('details', { on: { toggle: async (e) => {
        if (!e.target.open || asked) return;
        asked = true;
        try { pre.textContent = (await get('api/attachment?ref=' + encodeURIComponent(b.ref) + '&digest=' + encodeURIComponent(a.digest))).content; } catch (err) { asked = false; pre.textContent = err.message; }
      } } }, h('summary', null, 'Show the content'), pre);
    };
    return h('div', { class: 'panel scroll' }, h('table', null, h('caption', { class: 'unseen' }, 'What hangs on the record'), head([['Type'], ['Platform'], ['Digest']]),
      h('tbody', null, b.attachments.map((a) => { const c = content(a); return [h('tr', { class: c ? 'with' : undefined }, h('th', { scope: 'row' }, a.type), h('td', { class: 'flat' }, a.platform || ''), h('td', { class: 'mono' }, a.digest)), c && h('tr', { class: 'more' }, h('td', { colspan: 3 }, c))]; }))));
  };

  const buildView = (root) => {
    const view = { build: null, current: -1, tab: 'steps' };
    const headEl = h('div'), timeEl = h('section', { 'aria-labelledby': 'h-time' }), tabsEl = h('div', { class: 'tabs', role: 'tablist', 'aria-label': 'The build in detail' });
    const names = [['steps', 'Steps'], ['log', 'Log'], ['details', 'Inputs and outputs'], ['attached', 'Attachments']];
    const panels = {}, tabs = {}, dirty = {};
    const log = logView(view), table = stepTable(view);
    for (const [k, text] of names) {
      panels[k] = h('div', { class: 'tabpanel', role: 'tabpanel', id: 'panel-' + k, 'aria-labelledby': 'tab-' + k, tabindex: '-1', hidden: true });
      tabs[k] = button(text, () => view.show(k), { role: 'tab', id: 'tab-' + k, 'aria-controls': 'panel-' + k, 'aria-selected': 'false', tabindex: '-1' });
    }
    tabsEl.append(...Object.values(tabs));
    tabsEl.addEventListener('keydown', (e) => {
      const keys = names.map(([k]) => k), at = keys.indexOf(view.tab);
      const to = e.key === 'ArrowRight' ? (at + 1) % keys.length : e.key === 'ArrowLeft' ? (at + keys.length - 1) % keys.length : e.key === 'Home' ? 0 : e.key === 'End' ? keys.length - 1 : -1;
      if (to < 0) return;
      e.preventDefault();
      view.show(keys[to]);
      tabs[keys[to]].focus();
    });
    fill(root, headEl, timeEl, tabsEl, Object.values(panels));
    panels.steps.append(table.el);
    panels.log.append(log.el);

    view.show = (k) => {
      view.tab = k;
      for (const [name] of names) {
        const on = name === k;
        panels[name].hidden = !on;
        tabs[name].setAttribute('aria-selected', String(on));
        tabs[name].tabIndex = on ? 0 : -1;
      }
      if (k === 'log') return log.open();
      if (dirty[k]) { dirty[k] = false; if (k === 'steps') table.draw(); if (k === 'details') fill(panels.details, details(view.build)); if (k === 'attached') fill(panels.attached, attachments(view.build)); }
      return null;
    };
    view.mark = () => {
      for (const el of root.querySelectorAll('.step[aria-current]')) el.removeAttribute('aria-current');
      const bar = $('bar-' + view.current);
      if (bar) bar.setAttribute('aria-current', 'true');
    };
    view.choose = async (i) => {
      view.current = i;
      view.mark();
      log.top();
      await view.show('log');
      panels.log.focus({ preventScroll: true });
      panels.log.scrollIntoView({ block: 'nearest' });
      say(`Log of step ${i + 1}`);
    };
    let zoom = 1;
    const header = (b) => {
      const cachedSteps = b.cached || b.steps.filter((s) => s.state === 'cached').length, total = b.total || b.steps.length;
      fill(headEl,
        h('div', { class: 'head' }, h('h1', { tabindex: '-1', id: 'title' }, b.name), badge(b.status)),
        h('p', { class: 'ref' }, b.ref),
        h('dl', { class: 'facts' }, [
          ['Took', took(b.duration), b.status === 'running' && 'so far'], ['Began', when(b.started)], ['Builder', b.builder, b.node],
          ['Steps', n(total)], ['From the cache', n(cachedSteps), total > 0 && Math.round(cachedSteps / total * 100) + '%'], ['Critical path', took(b.critical), many(b.steps.filter((s) => s.critical).length, 'step')],
          ['Log', n(b.logs.lines), b.logs.lines === 1 ? 'line' : 'lines'], b.platforms && ['Platforms', b.platforms.join(', ')],
        ].filter(Boolean).map(([name, value, small]) => h('div', null, h('dt', null, name), h('dd', null, value, small && h('small', null, ' ' + small))))),
        b.error && h('div', { class: 'alarm', role: 'group', 'aria-label': 'Why it failed' }, h('strong', null, '✕ ' + (b.status === 'canceled' ? 'Canceled' : 'Failed')), h('pre', null, b.error.message), b.error.sources && h('pre', { tabindex: '0', 'aria-label': 'Lines of the Dockerfile' }, b.error.sources),
          b.error.step >= 0 && button('Show the log of the failed step', async () => { await view.choose(b.error.step); log.end(); }, { id: 'to-failure' })),
        (b.notes || []).map((t) => h('p', { class: 'note' }, t)),
        b.left > 0 && h('p', { class: 'note' }, many(b.left, 'more step') + ' there was no room for'));
    };
    view.update = (b) => {
      const focus = document.activeElement && root.contains(document.activeElement) ? document.activeElement.id : '';
      const old = timeEl.querySelector('.tl'), left = old ? [old.scrollLeft, old.scrollTop] : null;
      view.build = b;
      header(b);
      const tl = timeline(b.steps, b.lanes, b.duration, { prefix: 'bar-', label: 'Timeline', choose: view.choose, current: view.current });
      const set = (z) => { zoom = Math.max(1, Math.min(64, z)); tl.zoom(zoom); };
      fill(timeEl, h('div', { class: 'bar-tools' }, h('h2', { id: 'h-time' }, 'Timeline'), legend(),
        h('div', { class: 'group', role: 'group', 'aria-label': 'Zoom' }, button('−', () => set(zoom / 2), { 'aria-label': 'Zoom out', id: 'zoom-out' }), button('Fit', () => set(1), { id: 'zoom-fit' }), button('+', () => set(zoom * 2), { 'aria-label': 'Zoom in', id: 'zoom-in' }))),
      h('div', { class: 'panel' }, tl.el));
      if (zoom > 1) set(zoom);
      if (left) { tl.el.scrollLeft = left[0]; tl.el.scrollTop = left[1]; }
      fill(tabs.steps, 'Steps ', h('small', null, n(b.steps.length)));
      fill(tabs.log, 'Log ', h('small', null, n(b.logs.lines)));
      fill(tabs.attached, 'Attachments ', h('small', null, n((b.attachments || []).length)));
      dirty.steps = dirty.details = dirty.attached = true;
      view.show(view.tab);
      if (focus && $(focus) && document.activeElement !== $(focus)) $(focus).focus({ preventScroll: true });
    };
    return view;
  };

  // ---- two builds ----
  const compareView = (root, c) => {
    const total = Math.max(c.a.duration, c.b.duration, 1), worst = Math.max(1, ...c.rows.map((r) => Math.abs(r.delta)));
    const diff = (ms) => ms === 0 ? 'the same' : took(Math.abs(ms)) + (ms > 0 ? ' slower' : ' faster');
    const one = (name, s, k) => h('section', { 'aria-labelledby': 'h-' + k },
      h('div', { class: 'bar-tools' }, h('h2', { id: 'h-' + k }, name + ': ', h('a', { href: toBuild(s.ref) }, s.name)), badge(s.status), h('span', { class: 'muted' }, took(s.duration) + ', began ' + when(s.started))),
      h('div', { class: 'panel' }, timeline(s.steps, s.lanes, total, { prefix: k + '-', label: 'Timeline of ' + name }).el));
    const cell = (s) => s ? [s.state !== 'done' && [badge(s.state), ' '], took(s.busy)] : h('span', { class: 'muted' }, 'not there');
    const d = c.a.duration - c.b.duration;
    fill(root, h('h1', { id: 'title', tabindex: '-1' }, 'Two builds'),
      h('p', { class: 'ref' }, 'A is held against B. Steps are matched by what they do.'),
      h('dl', { class: 'facts' }, [['A took', took(c.a.duration)], ['B took', took(c.b.duration)], ['A is', diff(d)], ['Slower steps', n(c.rows.filter((r) => r.a >= 0 && r.b >= 0 && r.delta > 0).length)], ['Only in A', n(c.rows.filter((r) => r.b < 0).length)], ['Only in B', n(c.rows.filter((r) => r.a < 0).length)]].map(([a, b]) => h('div', null, h('dt', null, a), h('dd', null, b)))),
      h('div', { class: 'sides' }, one('A', c.a, 'ca'), one('B', c.b, 'cb')),
      h('section', { 'aria-labelledby': 'h-diff' }, h('div', { class: 'bar-tools' }, h('h2', { id: 'h-diff' }, 'What got slower'), legend()),
        h('div', { class: 'panel scroll' }, h('table', { id: 'differences' }, h('caption', { class: 'unseen' }, 'The steps of both builds, those that got slower first'), head([['Step'], ['A', 'num'], ['B', 'num'], ['Difference', 'num']]),
          h('tbody', null, c.rows.map((r) => h('tr', null, h('th', { scope: 'row', class: 'mono' }, r.name), h('td', { class: 'num' }, cell(c.a.steps[r.a])), h('td', { class: 'num' }, cell(c.b.steps[r.b])),
            h('td', { class: 'num' }, r.a < 0 ? 'only in B' : r.b < 0 ? 'only in A' : diff(r.delta), h('span', { class: 'delta', 'aria-hidden': 'true' }, h('i', { class: r.delta > 0 ? 'up' : 'down', at: { width: Math.abs(r.delta) / worst * 100 + '%' } }))))))))));
  };

  // ---- builders and builds ----
  // shownPlatforms leaves out the variants of amd64, which all have, and many others.
  const shownPlatforms = (all) => { const some = all.filter((p) => !/^linux\/amd64\/v/.test(p)); return some.slice(0, 3).join(', ') + (some.length > 3 ? ` and ${n(some.length - 3)} more` : ''); };
  const overview = (root) => {
    const picked = new Set();
    let all = null, text = '', status = '', last = '';
    const builders = h('tbody'), builds = h('tbody', { id: 'builds' }), counted = h('span', { class: 'count', role: 'status' });
    const cmp = button('Compare', () => { const [a, b] = all.builds.map((x) => x.ref).filter((r) => picked.has(r)); location.hash = '#/compare/' + encodeURIComponent(a) + '/with/' + encodeURIComponent(b); }, { id: 'compare', disabled: true });
    const filter = h('input', { type: 'search', id: 'filter', autocomplete: 'off', spellcheck: 'false', on: { input: (e) => { text = e.target.value.toLowerCase(); drawBuilds(); } } });
    const states = h('select', { id: 'state', on: { change: (e) => { status = e.target.value; drawBuilds(); } } }, ['', 'running', 'completed', 'failed', 'canceled'].map((s) => h('option', { value: s }, s || 'all')));
    const notes = h('div');
    fill(root, h('h1', { id: 'title', tabindex: '-1' }, 'Builders and builds'), notes,
      h('section', { 'aria-labelledby': 'h-builders' }, h('div', { class: 'bar-tools' }, h('h2', { id: 'h-builders' }, 'Builders')),
        h('div', { class: 'panel scroll' }, h('table', { id: 'builders' }, h('caption', { class: 'unseen' }, 'Builders and their nodes'), head([['Builder and node'], ['Health'], ['BuildKit'], ['Platforms'], ['Running', 'num'], ['Cache', 'num']]), builders))),
      h('section', { 'aria-labelledby': 'h-builds' }, h('div', { class: 'bar-tools' }, h('h2', { id: 'h-builds' }, 'Builds')),
        h('div', { class: 'tools', role: 'search', 'aria-label': 'The builds' }, h('label', { for: 'filter' }, 'Find a build', filter), h('label', { for: 'state' }, 'State', states), cmp, h('span', { class: 'count' }, 'choose two'), counted),
        h('div', { class: 'panel scroll' }, h('table', null, h('caption', { class: 'unseen' }, 'Builds, the newest first'), head([['Compare'], ['State'], ['Build'], ['Builder and node'], ['Began', 'num'], ['Took', 'num'], ['Steps', 'num'], ['Cached', 'num']]), builds))));
    const keepFocus = (f) => { const id = document.activeElement && document.activeElement.id; f(); if (id && $(id) && document.activeElement !== $(id)) $(id).focus({ preventScroll: true }); };
    const drawBuilders = () => fill(builders, all.builders.length ? all.builders.map((b) => [
      h('tr', null, h('th', { scope: 'row' }, h('strong', null, b.name), ' ', h('span', { class: 'muted' }, b.driver), b.current && ' (chosen)'), h('td', { colspan: 5 }, b.error || '')),
      (b.nodes || []).map((x) => h('tr', { class: 'sub' }, h('th', { scope: 'row' }, x.name, h('div', { class: 'muted mono flat' }, x.endpoint)),
        h('td', null, badge(x.health === 'running' ? 'healthy' : x.health === 'error' ? 'failed' : x.health === '' ? 'waiting' : 'away', x.health === 'running' ? 'healthy' : x.health || 'asking'), x.error && h('div', { class: 'muted wide' }, x.error)),
        h('td', { class: 'flat' }, x.version || ''), h('td', { class: 'flat' }, shownPlatforms(x.platforms || [])),
        h('td', { class: 'num' }, x.running < 0 ? '–' : n(x.running)), h('td', { class: 'num' }, x.cache < 0 ? '–' : size(x.cache)))),
    ]) : h('tr', null, h('td', { colspan: 6, class: 'empty' }, 'There is no builder. berth create URL makes one.')));
    const drawBuilds = () => {
      const shown = all.builds.filter((b) => (!status || b.status === status) && (!text || (b.name + ' ' + b.ref).toLowerCase().includes(text)));
      counted.textContent = many(shown.length, 'build') + (all.more ? `; ${n(all.more)} older are not shown` : '');
      keepFocus(() => fill(builds, shown.length ? shown.map((b) => h('tr', null,
        h('td', null, h('input', { type: 'checkbox', id: 'pick-' + b.ref, 'aria-label': 'Compare ' + b.name + ', began ' + when(b.started), checked: picked.has(b.ref), on: { change: (e) => {
          if (e.target.checked) picked.add(b.ref); else picked.delete(b.ref);
          if (picked.size > 2) picked.delete([...picked][0]);
          cmp.disabled = picked.size !== 2;
          drawBuilds();
        } } })),
        h('td', null, badge(b.status)), h('th', { scope: 'row' }, h('a', { href: toBuild(b.ref), id: 'to-' + b.ref }, b.name), h('div', { class: 'muted mono' }, b.id)), h('td', null, b.builder + ' / ' + b.node),
        h('td', { class: 'num' }, when(b.started)), h('td', { class: 'num' }, took(b.duration) + (b.status === 'running' ? ' …' : '')), h('td', { class: 'num' }, `${n(b.done)} / ${n(b.total)}`), h('td', { class: 'num' }, b.total ? Math.round(b.cached / b.total * 100) + '%' : ''))) : h('tr', null, h('td', { colspan: 8, class: 'empty' }, 'No build.'))));
    };
    return {
      update: (o) => {
        const now = JSON.stringify(o);
        if (now === last) return;
        last = now;
        const before = new Map((all ? all.builds : []).map((b) => [b.ref, b.status]));
        if (all) {
          const news = o.builds.filter((b) => before.get(b.ref) !== b.status).map((b) => (before.has(b.ref) ? '' : 'new: ') + b.name + ' ' + b.status);
          if (news.length) say(news.slice(0, 3).join('; '));
        }
        all = o;
        fill(notes, (o.notes || []).map((t) => h('p', { class: 'note' }, t)));
        drawBuilders();
        drawBuilds();
      },
    };
  };

  // ---- where one is ----
  const data = JSON.parse($('data').textContent);
  const live = data.mode === 'live';
  const main = $('main');
  $('skip').addEventListener('click', (e) => { e.preventDefault(); main.focus(); main.scrollIntoView(); });
  const get = async (path) => {
    let answer;
    try { answer = await fetch(path, { credentials: 'omit', cache: 'no-store', signal: AbortSignal.timeout(120000) }); } catch { throw new Error('The server does not answer; what is shown is what it said last. Is berth history open still running?'); }
    const body = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(body.error || 'HTTP ' + answer.status), { final: answer.status === 404 });
    return body;
  };
  const crumbs = (parts) => fill($('crumbs'), h('ol', null, parts.map(([text, href], i) => h('li', null, href ? h('a', { href }, text) : h('span', { 'aria-current': i === parts.length - 1 && 'page' }, text)))));
  const fresh = (text) => { $('fresh').textContent = text; };
  const failed = (root, e) => { const el = h('div', { class: 'alarm', role: 'alert', id: 'trouble' }, e.message); if ($('trouble')) $('trouble').replaceWith(el); else root.prepend(el); if ($('reading')) $('reading').remove(); };
  const fine = () => { if ($('trouble')) $('trouble').remove(); };

  const decoded = (text) => { try { return decodeURIComponent(text); } catch { return text; } };
  let round = 0;
  // follow calls ask again and again for as long as it says that there is more, and the
  // page is looked at.
  const follow = async (mine, ask) => {
    for (let first = true; mine === round; first = false) {
      if (first || !document.hidden) {
        let more = true;
        try { more = await ask(first); if (mine === round) { fine(); if (more) fresh('live · ' + clock(Date.now())); else fresh(''); } } catch (e) { if (e.final) more = false; if (mine === round) { failed(main, e); fresh(''); } }
        if (!more) return;
      }
      await new Promise((done) => { setTimeout(done, 2000); });
    }
  };
  const arrive = (title) => { document.title = title + ' – berth'; const t = $('title'); if (t && arrived) t.focus({ preventScroll: true }); arrived = true; };
  let arrived = false;
  const route = () => {
    const mine = ++round, path = location.hash.replace(/^#\/?/, '');
    hideTip();
    scrollTo(0, 0);
    fill(main, h('p', { class: 'empty', id: 'reading' }, 'Reading …'));
    if (path.startsWith('build/')) {
      const ref = decoded(path.slice(6));
      crumbs([['Builds', '#/'], [ref]]);
      let view = null, seen = false;
      follow(mine, async () => {
        const b = await get('api/build?ref=' + encodeURIComponent(ref));
        if (mine !== round) return false;
        const ended = view && b.status !== 'running';
        if (!view) view = buildView(main);
        view.update(b);
        if (!seen) { seen = true; arrive(b.name); }
        if (ended) say('The build has ended: ' + b.status);
        return b.status === 'running';
      });
    } else if (path.startsWith('compare/')) {
      const [a, b] = path.slice(8).split('/with/').map(decoded);
      crumbs([['Builds', '#/'], ['Compare']]);
      follow(mine, async () => { const c = await get('api/compare?a=' + encodeURIComponent(a) + '&b=' + encodeURIComponent(b)); if (mine === round) { compareView(main, c); arrive('Two builds'); } return false; });
    } else {
      crumbs([['Builds']]);
      let view = null;
      follow(mine, async () => { const o = await get('api/overview'); if (mine !== round) return false; if (!view) { view = overview(main); view.update(o); arrive('Builds'); } else view.update(o); return true; });
    }
  };
  if (live) {
    addEventListener('hashchange', route);
    if (data.ref && !location.hash) history.replaceState(null, '', toBuild(data.ref));
    route();
  } else {
    fill(main);
    crumbs([['Report of a build'], [data.build.ref]]);
    buildView(main).update(data.build);
    document.title = data.build.name + ' – berth';
    document.documentElement.dataset.ready = Math.round(performance.now());
  }
})();
