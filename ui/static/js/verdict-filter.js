// Checkboxes; none checked means all verdicts. Emits "change" with the chosen words in `value`.
export class VerdictFilter extends HTMLElement {
  get value() {
    return [...this.querySelectorAll("input:checked")].map((box) => box.value);
  }

  set value(words) {
    for (const box of this.querySelectorAll("input")) box.checked = words.includes(box.value);
  }
}
