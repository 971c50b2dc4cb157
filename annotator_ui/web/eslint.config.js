import hooks from "eslint-plugin-react-hooks";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["node_modules", "../static"] },
  ...tseslint.configs.strictTypeChecked,
  hooks.configs.flat["recommended"],
  {
    files: ["**/*.{ts,tsx}"],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/explicit-module-boundary-types": "error",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": [
        "error", { ignoreArrowShorthand: true, ignoreVoidReturningFunctions: true },
      ],
      "@typescript-eslint/no-misused-promises": ["error", { checksVoidReturn: { attributes: false } }],
      "max-lines": ["error", { max: 400 }],
      "max-lines-per-function": ["error", { max: 60, skipComments: true }],
    },
  },
  {
    // The core knows no framework: React draws the panels around the canvas (DESIGN.md section 2).
    files: ["src/core/**"],
    rules: {
      "no-restricted-imports": ["error", { paths: ["zustand"], patterns: ["react", "react-dom*", "**/ui/*"] }],
    },
  },
  { files: ["test/**"], rules: { "max-lines-per-function": "off" } },
  { files: ["eslint.config.js"], ...tseslint.configs.disableTypeChecked },
);
