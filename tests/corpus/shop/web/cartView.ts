import { LineItem, formatPrice } from "./money";

/** Draws the cart as a table, one row an article. */
export class CartView {
  constructor(private readonly root: HTMLElement) {}

  render(items: LineItem[]): void {
    this.root.innerHTML = items.map((item) => this.renderRow(item)).join("");
  }

  private renderRow(item: LineItem): string {
    return `<tr><td>${item.sku}</td><td>${formatPrice(item.price)}</td></tr>`;
  }
}

/** Asks before the cart is emptied; a click on cancel keeps every article. */
export function confirmClear(ask: (question: string) => boolean): boolean {
  return ask("Empty the cart?");
}
