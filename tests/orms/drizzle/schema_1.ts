// The first version.
import { index, integer, sqliteTable, text } from "drizzle-orm/sqlite-core";

export const authors = sqliteTable("authors", {
  id: text("id").primaryKey(),
  name: text("name").notNull(),
});

export const posts = sqliteTable(
  "posts",
  {
    id: text("id").primaryKey(),
    authorId: text("author_id").notNull().references(() => authors.id, { onDelete: "cascade" }),
    title: text("title").notNull(),
    views: integer("views"),
  },
  (t) => [index("posts_author").on(t.authorId)],
);
