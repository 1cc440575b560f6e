export interface LineItem {
  sku: string;
  price: number;
}

/** Formats cents as an amount with two decimals and a currency symbol. */
export function formatPrice(cents: number, currency = "€"): string {
  return `${(cents / 100).toFixed(2)} ${currency}`;
}

/** Parses what a person typed into an amount of cents; NaN for anything else. */
export function parsePrice(text: string): number {
  return Math.round(Number.parseFloat(text.replace(",", ".")) * 100);
}
