// Elements: made, matched to rows, put in words, and kept in place. Text always goes in as text nodes.

import { lang, t } from './words.js';

export const $ = (id) => document.getElementById(id);

/** Puts what index.html holds in words: `data-t…` say which. */
export function applyLanguage() {
  document.documentElement.lang = lang;
  document.documentElement.dir = lang === 'ar' ? 'rtl' : 'ltr';
  for (const el of document.querySelectorAll('[data-t]')) el.textContent = t(el.dataset.t);
  for (const el of document.querySelectorAll('[data-t-label]')) el.setAttribute('aria-label', t(el.dataset.tLabel));
  for (const el of document.querySelectorAll('[data-t-alt]')) el.alt = t(el.dataset.tAlt);
  for (const el of document.querySelectorAll('[data-t-hint]')) el.placeholder = t(el.dataset.tHint);
  $('language').textContent = lang === 'ar' ? 'English' : 'العربية';
  $('language').lang = lang === 'ar' ? 'en' : 'ar';
}

/** An element. Attributes that are null or false are left out; `on…` are listeners. */
export function h(tag, attributes, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith('on')) el.addEventListener(name.slice(2), value);
    else if (value != null && value !== false) el.setAttribute(name, value === true ? '' : value);
  }
  el.append(...children.flat().filter((child) => child != null && child !== false));
  return el;
}

/** Makes the children match `items` ({key, data, make}), touching only what changed, so that focus and playback stay. */
export function reconcile(parent, items) {
  const focused = document.activeElement.closest('[data-key]');
  const focusKey = focused?.parentElement === parent ? focused.dataset.key : null;
  const wanted = new Set(items.map((item) => item.key));
  for (const node of [...parent.children]) if (!wanted.has(node.dataset.key)) node.remove();
  const present = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let next = parent.firstElementChild;
  for (const { key, data, make } of items) {
    const print = JSON.stringify([lang, data]);
    let node = present.get(key);
    if (node?.print !== print) {
      const fresh = make();
      fresh.dataset.key = key;
      fresh.print = print;
      if (next === node && node) next = fresh;
      node?.replaceWith(fresh);
      node = fresh;
    }
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  if (focusKey != null && !parent.contains(document.activeElement)) {
    const node = [...parent.children].find((child) => child.dataset.key === focusKey);
    node?.querySelector('a, button, audio, video')?.focus({ preventScroll: true });
  }
}

/** Enter sends, Shift+Enter is a new line; Enter that ends an input method's composition is neither. */
export function sendOnEnter(textarea) {
  textarea.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    textarea.form.requestSubmit();
  });
}
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const toEnd = (el) => { el.scrollTop = el.scrollHeight; };
/** Whoever reads at the end stays there when messages come, pictures load or the box changes; scrolling up lets go. */
export function keepAtEnd(scroller) {
  let [stick, top] = [true, 0];
  scroller.addEventListener('scroll', () => {
    stick = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80 || (stick && scroller.scrollTop >= top);
    top = scroller.scrollTop;
  });
  const observer = new ResizeObserver(() => { if (stick) toEnd(scroller); });
  for (const el of [scroller, ...scroller.children]) observer.observe(el);
}
