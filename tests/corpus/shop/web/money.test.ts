import { formatPrice, parsePrice } from "./money";

test("formatPrice writes two decimals and the currency symbol", () => {
  expect(formatPrice(1250)).toBe("12.50 €");
});

test("parsePrice reads a decimal comma", () => {
  expect(parsePrice("12,50")).toBe(1250);
});
